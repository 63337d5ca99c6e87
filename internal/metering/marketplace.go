package metering

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// marketplaceForm is the partner of a marketplace identifier and the form that it must have.
type marketplaceForm struct {
	name        string
	partner     Partner
	integration string // of AWS: members of two integrations can't be together; empty belongs to both
	form        form
}

// form is what a text must look like.
type form struct {
	due   string // for messages: it must be ...
	check func(text string) bool
}

var (
	awsAccountForm = form{"12 digits", func(s string) bool { return len(s) == 12 && allDigits(s) }}
	guidForm       = form{"a GUID, such as 2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", func(s string) bool { return guidPattern().MatchString(s) }}
	licenseForm    = form{"the ARN of a licence, arn:aws:license-manager:...:license:...", func(s string) bool { return licensePattern().MatchString(s) }}
	hostForm       = form{"1 to 255 letters, digits, dots and hyphens, as in a host name", func(s string) bool { return hostPattern().MatchString(s) }}
	uriForm        = form{"a path that starts with /subscriptions/, of at most 2048 bytes", func(s string) bool {
		return strings.HasPrefix(s, "/subscriptions/") && checkBytes(s, MaxResourceURI, anywhere) == nil
	}}
	textForm = form{"1 to 255 characters, none of them a control character", func(s string) bool { return CheckKey(s) == nil }}
)

// The patterns are compiled on first use: most functions need none.
var (
	guidPattern    = pattern(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	licensePattern = pattern(`^arn:aws[a-z-]*:license-manager:[a-z0-9-]*:([0-9]{12})?:license:[A-Za-z0-9._/-]{1,255}$`)
	hostPattern    = pattern(`^[A-Za-z0-9.-]{1,255}$`)
)

func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// marketplaceForms are the forms of MarketplaceMembers.
func marketplaceForms() []marketplaceForm {
	return []marketplaceForm{
		{"customerAWSAccountID", "AWS", "licence", awsAccountForm},
		{"licenseArn", "AWS", "licence", licenseForm},
		{"customerIdentifier", "AWS", "product code", textForm},
		{"productCode", "AWS", "product code", textForm},
		{"region", "AWS", "", hostForm},
		{"resourceID", "AZURE", "", guidForm},
		{"resourceURI", "AZURE", "", uriForm},
		{"planID", "AZURE", "", textForm},
		{"usageReportingID", "GCP", "", textForm},
		{"serviceName", "GCP", "", hostForm},
	}
}

// Check returns an error, whose text begins with a member's name, if an identifier is malformed or
// another partner's, or if identifiers exclude each other.
func (m *MarketplaceIDs) Check(partner Partner) error {
	var integration, by string
	for _, f := range marketplaceForms() {
		value, given := MemberNamed(MarketplaceMembers, f.name).Get(m).(string)
		switch {
		case !given:
			continue
		case f.partner != partner:
			return Errorf(Invalid, "%s is an identifier of %s: an entitlement of %s has %s", f.name, f.partner, partner, strings.Join(marketplaceNames(partner), ", "))
		case !f.form.check(value):
			return Errorf(Invalid, "%s is %s: it must be %s", f.name, Quote(value), f.form.due)
		case f.integration != "" && integration != "" && f.integration != integration:
			return Errorf(Invalid, "%s is of another integration than %s: give customerAWSAccountID and licenseArn, or customerIdentifier and productCode", f.name, by)
		case f.integration != "":
			integration, by = f.integration, f.name
		}
	}
	if m.ResourceID != "" && m.ResourceURI != "" {
		return errors.New("resourceURI is there beside resourceID: give one of them, the one that the marketplace knows the resource by")
	}
	return nil
}

func marketplaceNames(partner Partner) (names []string) {
	for _, f := range marketplaceForms() {
		if f.partner == partner {
			names = append(names, f.name)
		}
	}
	return names
}

// IdentityKey names what the partner's marketplace takes for one buyer of one product: the partner
// and the identifiers without region and plan, GUIDs and URIs in lower case. Usage of two
// entitlements with the same key would be taken for duplicates. It is empty if the identifiers name
// nothing yet.
func (m *MarketplaceIDs) IdentityKey(partner Partner) string {
	var parts []string
	switch {
	case partner == "AWS" && m.CustomerAWSAccountID != "" && m.LicenseARN != "":
		parts = []string{"licence", m.CustomerAWSAccountID, m.LicenseARN}
	case partner == "AWS" && m.CustomerIdentifier != "" && m.ProductCode != "":
		parts = []string{"product code", m.CustomerIdentifier, m.ProductCode}
	case partner == "AZURE" && m.ResourceID != "":
		parts = []string{"resource", strings.ToLower(m.ResourceID)}
	case partner == "AZURE" && m.ResourceURI != "":
		parts = []string{"URI", strings.ToLower(m.ResourceURI)}
	case partner == "GCP" && m.UsageReportingID != "" && m.ServiceName != "":
		parts = []string{"service", m.UsageReportingID, m.ServiceName}
	default:
		return ""
	}
	// No part holds control characters.
	return hashOf([]byte(strings.Join(slices.Insert(parts, 0, string(partner)), "\x00")))
}
