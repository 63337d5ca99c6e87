//go:build unix && !linux

package localdb

// allow does nothing: if Docker's engine runs in its own virtual machine, files that a container
// writes to a folder of this machine belong to this user.
func allow(string, int) error { return nil }
