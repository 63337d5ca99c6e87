// Package apitest holds the tests of the whole API, from the bytes of a request to a real table and
// back. Every case is sent in both ways in which a request can arrive: as HTTP over a socket, and
// as the event that API Gateway sends to a Lambda function. `make e2e` sends the cases in a third
// way, over HTTP to the functions in containers, except those that can't run there (sam_test.go).
//
// Each request is sent with a key that a test has made. The requests to DynamoDB that it causes are
// checked against that key: every partition must belong to the key's organization, and every action
// must be allowed by the policy of its function in template.yaml.
//
// The expected results come from the API reference and the contract, never from the code: lists are
// compared with a plain filter in memory, config patches with RFC 7396 as printed there.
package apitest
