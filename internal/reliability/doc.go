// Package reliability checks the programs against the promises of docs/reliability.md: they are
// killed, overloaded and throttled, on a real DynamoDB Local. The same for requests, in one
// process, is in apitest.
package reliability
