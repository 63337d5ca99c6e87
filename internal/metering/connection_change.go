package metering

import (
	"maps"
	"slices"
	"strings"
)

// ConnectionChange creates or replaces a connection.
type ConnectionChange struct {
	Conditions Conditions
	Connection Connection // as the client sent it

	externalID string // of the connection if none is stored
}

// ConnectionRules are what connections are checked against beside their own form.
type ConnectionRules struct {
	Organization OrgID

	// SandboxURL is the only endpoint that is accepted; empty accepts none.
	SandboxURL string

	// OwnRole reports whether the organization may meter on AWS with the service's own role.
	OwnRole bool
}

// NewConnectionChange checks what a client sent for the connection of the path. It returns Invalid
// with the member and what is accepted. Its errors quote no value: that may be a secret, which does
// not belong there.
func NewConnectionChange(partner Partner, sent *Connection, rules ConnectionRules, conditions Conditions) (ConnectionChange, error) {
	c := *sent
	if c.Partner != "" && c.Partner != partner {
		return ConnectionChange{}, Errorf(Invalid, "partner is %s: it must be that of the path, %s, or absent", c.Partner, partner)
	}
	c.Partner = partner
	if err := c.check(rules); err != nil {
		return ConnectionChange{}, err
	}
	return ConnectionChange{Conditions: conditions, Connection: c, externalID: externalIDOf(rules.Organization)}, nil
}

// connectionMembers are the members of a connection that only some partners have.
var connectionMembers = map[Partner][]string{
	"AWS":   {"roleArn", "externalID"},
	"AZURE": {"tenantID", "clientID", "secretArn"},
	"GCP":   {"workloadIdentity", "secretArn"},
}

var (
	rolePattern = pattern(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,576}$`)
	// The name of a secret follows.
	secretPattern = pattern(`^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}$`)
)

func (c *Connection) check(rules ConnectionRules) error {
	for _, of := range Partners {
		for _, name := range connectionMembers[of] {
			if !slices.Contains(connectionMembers[c.Partner], name) && MemberNamed(ConnectionMembers, name).Get(c) != nil {
				return Errorf(Invalid, "%s is not a member of a connection to %s: it has %s", name, c.Partner,
					strings.Join(append(slices.Clone(connectionMembers[c.Partner]), "lateUsage", "lockMinutes", "endpoint"), ", "))
			}
		}
	}
	if most := maxLockMinutes[c.Partner]; c.LockMinutes != nil && (*c.LockMinutes < 0 || *c.LockMinutes > most) {
		return Errorf(Invalid, "lockMinutes is %d: it must be 0 to %d for %s", *c.LockMinutes, most, c.Partner)
	}
	if c.Endpoint != "" && c.Endpoint != rules.SandboxURL {
		if rules.SandboxURL == "" {
			return Errorf(Invalid, "endpoint is not accepted here: it is for a service that runs beside a sandbox of the marketplaces")
		}
		return Errorf(Invalid, "endpoint must be that of the sandbox of this service, %s, or absent", rules.SandboxURL)
	}
	if err := c.checkForms(rules.Organization); err != nil {
		return err
	}
	if c.Endpoint != "" {
		return nil // the sandbox accepts any credentials, or none
	}
	return c.checkCredentials(rules)
}

// checkForms checks the credentials that are given.
func (c *Connection) checkForms(org OrgID) error {
	secrets := "marketmeter/" + string(org) + "/"
	switch {
	case c.RoleARN != "" && !rolePattern().MatchString(c.RoleARN):
		return Errorf(Invalid, "roleArn must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/marketmeter")
	case c.TenantID != "" && !guidForm.check(c.TenantID):
		return Errorf(Invalid, "tenantID must be %s", guidForm.due)
	case c.ClientID != "" && !guidForm.check(c.ClientID):
		return Errorf(Invalid, "clientID must be %s", guidForm.due)
	case c.SecretARN != "" && !isSecretOf(c.SecretARN, secrets):
		return Errorf(Invalid, "secretArn must be the ARN of a secret in AWS Secrets Manager whose name starts with %s, such as arn:aws:secretsmanager:us-east-1:123456789012:secret:%sazure-AbCdEf", secrets, secrets)
	case c.SecretARN != "" && c.WorkloadIdentity != nil:
		return Errorf(Invalid, "secretArn is there beside workloadIdentity: give one of them")
	case c.WorkloadIdentity != nil:
		return checkExternalAccount(c.WorkloadIdentity)
	default:
		return nil
	}
}

func isSecretOf(arn, prefix string) bool {
	_, name, _ := strings.Cut(arn, ":secret:")
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && rest != "" && secretPattern().MatchString(arn)
}

// checkCredentials returns an error if credentials are missing without which no usage can be
// reported.
func (c *Connection) checkCredentials(rules ConnectionRules) error {
	switch {
	case c.Partner == "AWS" && c.RoleARN == "" && !rules.OwnRole:
		return Errorf(Invalid, "roleArn is missing: this organization may not report usage with the service's own role")
	case c.Partner == "AZURE" && (c.TenantID == "" || c.ClientID == "" || c.SecretARN == ""):
		return Errorf(Invalid, "tenantID, clientID and secretArn are required for a connection to AZURE")
	case c.Partner == "GCP" && c.SecretARN == "" && c.WorkloadIdentity == nil:
		return Errorf(Invalid, "workloadIdentity or secretArn is required for a connection to GCP")
	default:
		return nil
	}
}

// Apply returns the connection to store in place of the stored one. It returns PreconditionFailed
// if the stored one does not meet the conditions, and Invalid if the client sent another externalID
// than the service's.
func (c *ConnectionChange) Apply(stored *Stored[Connection]) (Connection, error) {
	if err := CheckConditions(c.Conditions, "the connection", stored); err != nil {
		return Connection{}, err
	}
	externalID := stored.Value.ExternalID
	if externalID == "" && (c.Connection.RoleARN != "" || c.Connection.ExternalID != "") {
		externalID = c.externalID
	}
	after := c.Connection
	if after.ExternalID != "" && after.ExternalID != externalID {
		return Connection{}, Errorf(Invalid, "externalID is not the one of this organization: the service makes it, so leave it out or send what GET returns")
	}
	after.ExternalID = externalID
	return after, nil
}

// externalIDOf is the external id with which the service assumes a role for the organization. A
// client can't choose it: it names the organization, so that no other can have the service assume
// the role (the confused deputy of AWS's documentation). It is no secret.
func externalIDOf(org OrgID) string {
	return "marketmeter-" + hashOf([]byte("externalID of "+string(org)))
}

// externalAccountMembers are the members that the workloadIdentity of a connection may have, by
// their path, and what their values must be. Anything else is refused: a file, an executable, a
// secret or a host that is not Google's or the AWS environment's.
func externalAccountMembers() map[string]form {
	return map[string]form{
		"type":               exactly("external_account"),
		"audience":           {"an audience of at most 2048 characters that starts with //iam.googleapis.com/", isAudience},
		"subject_token_type": exactly("urn:ietf:params:aws:token-type:aws4_request"),
		"token_url":          {googleURL, isGoogleURL},
		"token_info_url":     {googleURL, isGoogleURL},
		"service_account_impersonation_url": {
			"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken, with the service account that reports usage",
			func(s string) bool { return len(s) <= maxURL && ImpersonationPath(s) != "" },
		},
		"universe_domain":                  exactly("googleapis.com"),
		"quota_project_id":                 {"a project id", func(s string) bool { return hostForm.check(s) }},
		"credential_source.environment_id": exactly("aws1"),
		"credential_source.region_url": exactly("http://169.254.169.254/latest/meta-data/placement/availability-zone",
			"http://[fd00:ec2::254]/latest/meta-data/placement/availability-zone"),
		"credential_source.url": exactly("http://169.254.169.254/latest/meta-data/iam/security-credentials",
			"http://[fd00:ec2::254]/latest/meta-data/iam/security-credentials"),
		"credential_source.imdsv2_session_token_url":       exactly("http://169.254.169.254/latest/api/token", "http://[fd00:ec2::254]/latest/api/token"),
		"credential_source.regional_cred_verification_url": exactly("https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"),
	}
}

// requiredOfExternalAccount are the members without which Google can't be asked for a token. The
// principal of a pool itself can't report usage: a service account does.
var requiredOfExternalAccount = []string{
	"type", "audience", "subject_token_type", "token_url", "service_account_impersonation_url",
	"credential_source.environment_id", "credential_source.regional_cred_verification_url",
}

const (
	// maxURL bounds the URLs and the audience of an external account. Source: ours.
	maxURL    = 2048
	googleURL = "an https URL of a host of googleapis.com"
)

func exactly(values ...string) form {
	return form{strings.Join(values, " or "), func(s string) bool { return slices.Contains(values, s) }}
}

func isAudience(s string) bool {
	return strings.HasPrefix(s, "//iam.googleapis.com/") && checkBytes(s, maxURL, anywhere) == nil
}

var googleURLPattern = pattern(`^https://([a-z0-9-]+\.)+googleapis\.com/[A-Za-z0-9._~/:@%+-]*$`)

func isGoogleURL(s string) bool { return len(s) <= maxURL && googleURLPattern().MatchString(s) }

var impersonationPattern = pattern(`^https://iamcredentials\.googleapis\.com(/v1/projects/-/serviceAccounts/[A-Za-z0-9@._-]+:generateAccessToken)$`)

// ImpersonationPath returns the path of the URL by which the principal of a pool gets a token for a
// service account, or an empty string if it is not of the only form that is called.
func ImpersonationPath(url string) string {
	if found := impersonationPattern().FindStringSubmatch(url); found != nil {
		return found[1]
	}
	return ""
}

// checkExternalAccount checks the JSON of an external account as gcloud makes it for AWS.
func checkExternalAccount(account map[string]any) error {
	given, members := map[string]bool{}, externalAccountMembers()
	var check func(path string, object map[string]any) error
	check = func(path string, object map[string]any) error {
		for _, name := range slices.Sorted(maps.Keys(object)) {
			at := path + name
			switch value := object[name].(type) {
			case map[string]any:
				switch at {
				case "credential_source":
					if err := check(at+".", value); err != nil {
						return err
					}
					continue
				case "service_account_impersonation": // {"token_lifetime_seconds": number}
					if _, isNumber := value["token_lifetime_seconds"].(Number); isNumber && len(value) == 1 {
						continue
					}
				}
			case string:
				if form, known := members[at]; known {
					if !form.check(value) {
						return Errorf(Invalid, "workloadIdentity.%s must be %s", at, form.due)
					}
					given[at] = true
					continue
				}
			}
			return Errorf(Invalid, "workloadIdentity has a member that is not accepted: it may have %s and service_account_impersonation.token_lifetime_seconds, as gcloud makes them for AWS; no file, executable or secret",
				strings.Join(slices.Sorted(maps.Keys(members)), ", "))
		}
		return nil
	}
	if err := check("", account); err != nil {
		return err
	}
	for _, name := range requiredOfExternalAccount {
		if !given[name] {
			return Errorf(Invalid, "workloadIdentity.%s is missing: %s are required", name, strings.Join(requiredOfExternalAccount, ", "))
		}
	}
	return nil
}
