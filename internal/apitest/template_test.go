package apitest

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// deployment is what template.yaml declares of the API, its functions and their permissions.
type deployment struct {
	globals   map[string]yaml.Node
	resources map[string]resource
	functions []*function // by name
}

type resource struct {
	Type       string               `yaml:"Type"`
	Properties map[string]yaml.Node `yaml:"Properties"` // they may contain !Ref and similar tags
}

// function is a function with its name in the template and its folder in functions/.
type function struct {
	name, folder string
	memory       int // in MB
	timeout      time.Duration
	endpoints    []endpoint
	permissions  []permission
	schedule     string // of a worker
	queue        string // of a worker: the queue whose messages call it
}

// endpoint is an HttpApi event.
type endpoint struct{ method, path string }

func (e endpoint) String() string { return e.method + " " + e.path }

// permission is one action on one resource that a policy allows, "dynamodb:Query" on
// "table/index/byTime", with its conditions.
type permission struct {
	action, resource string
	conditions
}

// conditions are lists of allowed values; if one is nil, any value is allowed.
type conditions struct {
	leading    []string // patterns that the partition keys must match (dynamodb:LeadingKeys)
	attributes []string // the attributes that a request may name (dynamodb:Attributes)
	returns    []string // what it may request to be returned, if anything (dynamodb:ReturnValues)
}

func (p permission) String() string { return p.action + " on " + p.resource }

// deployed is template.yaml, read once.
var deployed = sync.OnceValue(func() *deployment {
	d, err := readDeployment(marketmeter.Template)
	if err != nil {
		panic(err)
	}
	return d
})

// readDeployment fails on any property, related to what a function may do, that it does not
// understand: nothing that a template allows is overlooked.
func readDeployment(template []byte) (*deployment, error) {
	var file struct {
		Globals   map[string]yaml.Node `yaml:"Globals"`
		Resources map[string]resource  `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(template, &file); err != nil {
		return nil, err
	}
	d := &deployment{globals: file.Globals, resources: file.Resources}
	globals := map[string]yaml.Node{}
	if err := decodeIfThere(file.Globals["Function"], &globals); err != nil {
		return nil, err
	}
	if err := wantKnown("Globals.Function", globals, harmlessProperties); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(file.Resources)) {
		r := file.Resources[name]
		if strings.HasPrefix(r.Type, "AWS::IAM::") || r.Type == "AWS::Serverless::Connector" || r.Type == "AWS::SQS::QueuePolicy" {
			return nil, fmt.Errorf("%s, a %s, allows what is not checked here", name, r.Type)
		}
		if r.Type != "AWS::Serverless::Function" {
			continue
		}
		f, err := readFunction(r, globals)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		f.name = name
		d.functions = append(d.functions, f)
	}
	return d, d.readMappings()
}

// readMappings reads which queue calls which function. Each message calls the alias, and what
// fails of a batch is reported by message.
func (d *deployment) readMappings() error {
	for name, r := range d.resources {
		if r.Type != "AWS::Lambda::EventSourceMapping" {
			continue
		}
		var m struct {
			Source        string   `yaml:"EventSourceArn"`
			Function      string   `yaml:"FunctionName"`
			BatchSize     int      `yaml:"BatchSize"`
			ResponseTypes []string `yaml:"FunctionResponseTypes"`
			Scaling       struct {
				MaximumConcurrency string `yaml:"MaximumConcurrency"`
			} `yaml:"ScalingConfig"`
		}
		for member, to := range map[string]any{
			"EventSourceArn": &m.Source, "FunctionName": &m.Function, "BatchSize": &m.BatchSize, "FunctionResponseTypes": &m.ResponseTypes, "ScalingConfig": &m.Scaling,
		} {
			if err := decodeIfThere(r.Properties[member], to); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err := wantKnown(name, r.Properties, []string{"BatchSize", "Enabled", "EventSourceArn", "FunctionName", "FunctionResponseTypes", "ScalingConfig", "Tags"}); err != nil {
			return err
		}
		function, alias := strings.CutSuffix(strings.TrimPrefix(m.Function, "${"), ".Arn}:live")
		queue, arn := strings.CutSuffix(m.Source, ".Arn")
		f := d.function(function)
		if !alias || !arn || f == nil || f.queue != "" || !slices.Equal(m.ResponseTypes, []string{"ReportBatchItemFailures"}) || m.BatchSize != 10 || m.Scaling.MaximumConcurrency != "WorkerConcurrency" {
			return fmt.Errorf("%s maps %s to %s in a way that is not understood here: %+v", name, m.Source, m.Function, m)
		}
		f.queue = queue
	}
	return nil
}

// harmlessProperties of a function neither admit clients nor add permissions.
var harmlessProperties = []string{
	"Architectures", "AutoPublishAlias", "AutoPublishAliasAllProperties", "DeploymentPreference", "Description", "Environment", "Handler", "LoggingConfig",
	"MemorySize", "ReservedConcurrentExecutions", "Runtime", "Tags", "Timeout", "Tracing",
}

// wantKnown fails on an unknown property: it may open an access that is not checked here, as a
// function's own URL does.
func wantKnown(what string, properties map[string]yaml.Node, known []string) error {
	for name := range properties {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s has %s, which is not checked here", what, name)
		}
	}
	return nil
}

func readFunction(r resource, globals map[string]yaml.Node) (*function, error) {
	if err := wantKnown("it", r.Properties, append([]string{"CodeUri", "EventInvokeConfig", "Events", "Policies"}, harmlessProperties...)); err != nil {
		return nil, err
	}
	retries := map[string]yaml.Node{}
	if err := decodeIfThere(r.Properties["EventInvokeConfig"], &retries); err != nil {
		return nil, err
	}
	if err := wantKnown("its EventInvokeConfig", retries, []string{"MaximumEventAgeInSeconds", "MaximumRetryAttempts"}); err != nil {
		return nil, err
	}
	var uri string
	var events map[string]struct {
		Type       string `yaml:"Type"`
		Properties struct {
			Method string `yaml:"Method"`
			Path   string `yaml:"Path"`

			Schedule string `yaml:"Schedule"`
		} `yaml:"Properties"`
	}
	code, listed, policies := r.Properties["CodeUri"], r.Properties["Events"], r.Properties["Policies"]
	if err := errors.Join(code.Decode(&uri), decodeIfThere(listed, &events)); err != nil {
		return nil, err
	}
	folder, ok := strings.CutPrefix(filepath.ToSlash(filepath.Clean(uri)), "functions/")
	if !ok {
		return nil, fmt.Errorf("its CodeUri %s is not below functions/", uri)
	}
	f := &function{folder: folder}
	var seconds int
	for _, properties := range []map[string]yaml.Node{globals, r.Properties} {
		if err := errors.Join(decodeIfThere(properties["MemorySize"], &f.memory), decodeIfThere(properties["Timeout"], &seconds)); err != nil {
			return nil, err
		}
	}
	f.timeout = time.Duration(seconds) * time.Second
	for name, e := range events {
		switch e.Type {
		case "HttpApi":
			f.endpoints = append(f.endpoints, endpoint{e.Properties.Method, e.Properties.Path})
		case "Schedule":
			f.schedule = e.Properties.Schedule
		default:
			return nil, fmt.Errorf("its event %s is a %s: only HttpApi has the authorizer before it", name, e.Type)
		}
	}
	var err error
	f.permissions, err = readPolicies(policies)
	return f, err
}

func decodeIfThere(node yaml.Node, to any) error {
	if node.IsZero() {
		return nil
	}
	return node.Decode(to)
}

// readPolicies reads a list of policy documents. It accepts only those that allow actions by name
// on resources of this stack by name.
func readPolicies(node yaml.Node) ([]permission, error) {
	if node.IsZero() {
		return nil, nil
	}
	var documents []struct {
		Version   string                 `yaml:"Version"`
		Statement []map[string]yaml.Node `yaml:"Statement"`
		Other     map[string]yaml.Node   `yaml:",inline"`
	}
	if err := node.Decode(&documents); err != nil {
		return nil, fmt.Errorf("its Policies are not documents alone: %w", err)
	}
	var all []permission
	for _, document := range documents {
		if len(document.Other) > 0 || len(document.Statement) == 0 {
			return nil, fmt.Errorf("its Policies hold something that is no document: %v", slices.Collect(maps.Keys(document.Other)))
		}
		for _, statement := range document.Statement {
			permissions, err := readStatement(statement)
			if err != nil {
				return nil, fmt.Errorf("its Policies: %w", err)
			}
			all = append(all, permissions...)
		}
	}
	return all, nil
}

func readStatement(statement map[string]yaml.Node) ([]permission, error) {
	for name := range statement {
		if !slices.Contains([]string{"Effect", "Action", "Resource", "Condition"}, name) {
			return nil, fmt.Errorf("a statement has %s, which is not understood here", name)
		}
	}
	if effect := statement["Effect"]; effect.Value != "Allow" {
		return nil, fmt.Errorf("the Effect is %q", effect.Value)
	}
	conditions, err := readConditions(statement["Condition"])
	if err != nil {
		return nil, err
	}
	var all []permission
	for _, action := range oneOrMore(statement["Action"]) {
		service, name, ok := strings.Cut(action.Value, ":")
		if !ok || name == "" || strings.ContainsAny(action.Value, "*?") {
			return nil, fmt.Errorf("the Action is %q: it must be one action, named in full", action.Value)
		}
		for _, node := range oneOrMore(statement["Resource"]) {
			resource := node.Value // what Call.Resource is compared with
			if service == "dynamodb" {
				if resource, err = resourceNamed(node); err != nil {
					return nil, err
				}
			}
			all = append(all, permission{action.Value, resource, conditions})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("a statement allows nothing")
	}
	return all, nil
}

func oneOrMore(node yaml.Node) []*yaml.Node {
	if node.Kind == yaml.SequenceNode && node.Tag == "!!seq" {
		return node.Content
	}
	return []*yaml.Node{&node}
}

// resourceNamed is "table" for the table, and "table/index/<name>" for an index of it.
func resourceNamed(node *yaml.Node) (string, error) {
	whole := "!GetAtt " + node.Value
	if node.Kind == yaml.SequenceNode { // !GetAtt [Table, Arn]
		parts := []string{}
		for _, part := range node.Content {
			parts = append(parts, part.Value)
		}
		whole = "!GetAtt " + strings.Join(parts, ".")
	}
	if whole == "!GetAtt Table.Arn" && node.Tag == "!GetAtt" || node.Tag == "!Sub" && node.Value == "${Table.Arn}" {
		return "table", nil
	}
	if name, ok := strings.CutPrefix(node.Value, "${Table.Arn}/index/"); ok && node.Tag == "!Sub" && name != "" && !strings.ContainsAny(name, "*?${}/") {
		return "table/index/" + name, nil
	}
	return "", fmt.Errorf("the Resource is %s %q: it must be the table or an index, named in full", node.Tag, node.Value)
}

// readConditions reads the conditions that it understands; each must have the operator that AWS
// requires for it.
func readConditions(node yaml.Node) (c conditions, err error) {
	if node.IsZero() {
		return c, nil
	}
	var operators map[string]map[string]yaml.Node
	if err := node.Decode(&operators); err != nil {
		return c, err
	}
	for operator, keys := range operators {
		for key, values := range keys {
			texts := []string{}
			for _, value := range oneOrMore(values) {
				texts = append(texts, value.Value)
			}
			switch operator + " " + key {
			case "ForAllValues:StringLike dynamodb:LeadingKeys":
				for _, pattern := range texts {
					if strings.HasPrefix(pattern, "*") || strings.ContainsAny(strings.ReplaceAll(pattern, "#*", "#"), "*?$") {
						return c, fmt.Errorf("the leading key is %q: a * may stand after a # alone", pattern)
					}
					c.leading = append(c.leading, pattern)
				}
			case "ForAllValues:StringEquals dynamodb:Attributes":
				c.attributes = texts
			case "StringEqualsIfExists dynamodb:ReturnValues":
				c.returns = texts
			default:
				return c, fmt.Errorf("the Condition %s of %s is not understood here", operator, key)
			}
		}
	}
	return c, nil
}

// function is the function of that name, or nil.
func (d *deployment) function(name string) *function {
	for _, f := range d.functions {
		if f.name == name {
			return f
		}
	}
	return nil
}

// allows reports whether the permission matches that access.
func (p permission) allows(a tabletest.Access) bool {
	return p.action == "dynamodb:"+a.Action && p.resource == resourceOf(a) && (p.leading == nil ||
		!slices.ContainsFunc(a.Partitions, func(partition string) bool {
			return !slices.ContainsFunc(p.leading, func(pattern string) bool { return isLike(partition, pattern) })
		})) && (p.attributes == nil || !slices.ContainsFunc(a.Attributes, func(name string) bool { return !slices.Contains(p.attributes, name) })) &&
		(p.returns == nil || a.Returns == "" || slices.Contains(p.returns, a.Returns))
}

// isLike is IAM's StringLike, for patterns that contain only *.
func isLike(partition, pattern string) bool {
	return regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(partition)
}

func resourceOf(a tabletest.Access) string {
	if a.Index != "" {
		return "table/index/" + a.Index
	}
	return "table"
}

// lacks returns what the function of that name lacks to send the request, or "" if it may.
func (d *deployment) lacks(name string, asked tabletest.Request) string {
	if asked.Unclear != nil {
		return fmt.Sprintf("in a way that can't be judged: %v", asked.Unclear)
	}
	for _, access := range asked.Accesses {
		f := d.function(name)
		if f == nil || !slices.ContainsFunc(f.permissions, func(p permission) bool { return p.allows(access) }) {
			return fmt.Sprintf("which the policy of %s does not allow: dynamodb:%s on %s of partition %q, attributes %q, returning %q",
				name, access.Action, resourceOf(access), access.Partitions, access.Attributes, access.Returns)
		}
	}
	return ""
}

// routed returns the function to which template.yaml routes a request, and by which of its
// endpoints. It returns nil if none matches.
func routed(method, path string) (*function, endpoint) {
	for _, f := range deployed().functions {
		for _, e := range f.endpoints {
			if e.method == method && e.parameters(path) != nil {
				return f, e
			}
		}
	}
	return nil, endpoint{}
}

// parameters are those of the path by the endpoint, nil if the path does not match.
func (e endpoint) parameters(path string) map[string]string {
	pattern, parts := strings.Split(e.path, "/"), strings.Split(path, "/")
	if len(pattern) != len(parts) {
		return nil
	}
	values := map[string]string{}
	for i, wanted := range pattern {
		part, err := url.PathUnescape(parts[i])
		name, ok := strings.CutPrefix(wanted, "{")
		switch {
		case err != nil:
			return nil
		case ok && part != "":
			values[strings.TrimSuffix(name, "}")] = part
		case part != wanted:
			return nil
		}
	}
	return values
}
