// Package marketmeter embeds the files that the program needs at run time.
package marketmeter

import _ "embed"

// Template is the deployment template. The local table and the tests' tables are created from it.
//
//go:embed template.yaml
var Template []byte

// OpenAPI is the description of the API.
//
//go:embed api/openapi.yaml
var OpenAPI []byte
