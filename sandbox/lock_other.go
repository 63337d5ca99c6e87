//go:build !unix

package sandbox

import "os"

func lock(*os.File) error { return nil }

// syncFolder does nothing: the system cannot sync a folder.
func syncFolder(string) error { return nil }
