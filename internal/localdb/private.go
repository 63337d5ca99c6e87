package localdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// makePrivate makes the folder data and its contents private to its owner: no other user may read
// keys and usage there. Permissions that an earlier version left open are removed. A file of
// another user, that of a container, is not changed: other users can't enter the folder.
func makePrivate(data string) error {
	err := os.MkdirAll(filepath.Dir(data), 0o755)
	if err == nil {
		err = os.Mkdir(data, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		err = os.Chmod(data, 0o700)
	}
	if err != nil {
		return fmt.Errorf("the folder of the local database: %w", err)
	}
	return eachIn(data, func(path string, info fs.FileInfo) error {
		return os.Chmod(path, info.Mode().Perm()&0o700)
	})
}

// eachIn calls change for each file and folder in data that this user may change.
func eachIn(data string, change func(path string, info fs.FileInfo) error) error {
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path != data && entry.Type()&fs.ModeSymlink == 0 {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				err = change(path, info)
			}
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the folder of the local database: %w", err)
	}
	return nil
}
