// Package build says which build of the program runs: the version and the commit that the Go
// command has stamped into it.
package build

import (
	"cmp"
	"runtime/debug"
	"strings"
	"sync"
)

// Info is what is known of the build. Commit is "unknown" if the program was built without version
// control, and ends in "+dirty" if files differed from the commit. Version is "devel" if the build
// has none.
type Info struct{ Version, Commit string }

// Current returns the Info of the running program.
var Current = sync.OnceValue(func() Info {
	stamped, ok := debug.ReadBuildInfo()
	if !ok {
		stamped = new(debug.BuildInfo)
	}
	return of(stamped)
})

func of(stamped *debug.BuildInfo) Info {
	info := Info{Version: strings.Trim(stamped.Main.Version, "()")}
	dirty := false
	for _, s := range stamped.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	info.Version, info.Commit = cmp.Or(info.Version, "devel"), cmp.Or(info.Commit, "unknown")
	if dirty {
		info.Commit += "+dirty"
	}
	return info
}

// LogAttributes returns the version and the commit as attributes of log lines.
func (i Info) LogAttributes() []any { return []any{"version", i.Version, "commit", i.Commit} }

func (i Info) String() string { return i.Version + ", commit " + i.Commit }
