// Package marketmeter carries the files that the program needs wherever it runs.
package marketmeter

import _ "embed"

// Template is the deployment template; the local table and the tables of the tests are made from
// it.
//
//go:embed template.yaml
var Template []byte

// OpenAPI is the description of the API.
//
//go:embed api/openapi.yaml
var OpenAPI []byte
