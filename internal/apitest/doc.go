// Package apitest holds the tests of the whole API, from a request's bytes to a real table and
// back. Every case is sent in both ways that a request can come: as HTTP over a socket, and as the
// event that API Gateway hands to a Lambda function. `make e2e` sends them a third way, over HTTP
// to the functions in containers, but for those that can't go it (sam_test.go).
//
// Each request is sent with a key that a test has made, and whatever it is for, what it asks of
// DynamoDB is held to that: every partition must be one of the organization whose key was sent, and
// every action one that the policy of its function in template.yaml allows.
//
// What is expected here comes from the API reference and the contract, never from the code: lists
// are compared with a plain filter in memory, config patches with RFC 7396 as it is printed.
package apitest
