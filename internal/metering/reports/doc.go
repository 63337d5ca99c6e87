// Package reports decides how usage is reported to a marketplace: when, in which hour, how much, and
// what the responses mean. docs/reporting.md explains the protocol. Everything here is a value or a
// pure function: the callers read and write the table, call the marketplace and know the time.
//
// Two rules carry the promise that every unit is billed at most once. What is sent for an hour never
// changes. Usage leaves an hour only if no request for that hour can have been billed.
package reports
