// Package model holds small exhaustive models of the protocol that docs/reporting.md describes.
// They are tests: a developer of the protocol changes them first, and shows that the change holds.
//
// A model is searched breadth first, so that the trace of a violation is a shortest one. Each has
// variants that break a promise, by a guard that is missing, and variants that hold.
package model
