package localdb

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// allow gives the user uid this user's permissions in the folder data, and no other user any. It
// uses access control lists, which the owner of the folder may set. Only this user and uid can read
// the files that uid creates there.
func allow(data string, uid int) error {
	if uid == os.Getuid() {
		return nil
	}
	err := allowFolder(data, uid)
	if err == nil {
		err = eachIn(data, func(path string, info fs.FileInfo) error {
			if info.IsDir() {
				return allowFolder(path, uid)
			}
			return setACL(path, "system.posix_acl_access", 6, uid)
		})
	}
	if err != nil {
		return fmt.Errorf("opening the folder of the local database to the user %d of the container: %w", uid, err)
	}
	return nil
}

func allowFolder(path string, uid int) error {
	if err := setACL(path, "system.posix_acl_access", 7, uid); err != nil {
		return err
	}
	return setACL(path, "system.posix_acl_default", 7, uid, os.Getuid())
}

// setACL grants the permissions (4 to read, 2 to write, 1 to pass) to the owner and the users, and
// to no other user.
func setACL(path, list string, permissions uint16, users ...int) error {
	const (
		version                                = 2
		owner, user, group, mask, other        = 0x01, 0x02, 0x04, 0x10, 0x20
		nobody                          uint32 = 1<<32 - 1 // for entries that name no user
	)
	acl := binary.LittleEndian.AppendUint32(nil, version)
	entry := func(tag, permissions uint16, id uint32) {
		acl = binary.LittleEndian.AppendUint16(acl, tag)
		acl = binary.LittleEndian.AppendUint16(acl, permissions)
		acl = binary.LittleEndian.AppendUint32(acl, id)
	}
	entry(owner, permissions, nobody)
	slices.Sort(users)
	for _, id := range users {
		entry(user, permissions, uint32(id))
	}
	entry(group, 0, nobody)
	entry(mask, permissions, nobody)
	entry(other, 0, nobody)
	if err := syscall.Setxattr(path, list, acl, 0); err != nil {
		return &fs.PathError{Op: "setxattr " + list, Path: path, Err: err}
	}
	return nil
}
