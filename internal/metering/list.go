package metering

import "time"

// ListRequest asks for a page of an organization's groups: newest first, groups of the same time in
// descending byte order of their ids.
type ListRequest struct {
	Filter GroupFilter

	// Client and Query identify the list: the key of the client, and its parameters without those
	// that differ between the pages.
	Client, Query string

	Offset  int    // how many groups are before the page
	Cursor  string // GroupPage.NextCursor of the page before, instead of Offset
	Limit   int    // of groups in the page
	MaxSize int    // of the page in the response, in bytes; a page has at least one group

	Now     time.Time
	ReadFor time.Duration // the page ends after this time with the groups found so far
}

// GroupPage describes a page of an organization's groups.
type GroupPage struct {
	Count      int    // of groups in the page
	NextOffset int    // 0 if no group follows
	NextCursor string // empty if no group follows
}
