package build

import (
	"runtime/debug"
	"testing"
)

func TestInfo_NamesWhatIsStamped(t *testing.T) {
	t.Parallel()
	stamp := func(version string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	for _, test := range []struct {
		name    string
		stamped *debug.BuildInfo
		want    Info
	}{
		{"nothing", stamp(""), Info{"devel", "unknown"}},
		{"without version control", stamp("(devel)", "-trimpath", "true"), Info{"devel", "unknown"}},
		{"a tag", stamp("v1.2.3", "vcs", "git", "vcs.revision", "f709ae0", "vcs.modified", "false"), Info{"v1.2.3", "f709ae0"}},
		{"changed files", stamp("v0.0.0-20261126-f709ae0+dirty", "vcs.modified", "true", "vcs.revision", "f709ae0"), Info{"v0.0.0-20261126-f709ae0+dirty", "f709ae0+dirty"}},
		{"installed from a module proxy", stamp("v1.2.3"), Info{"v1.2.3", "unknown"}},
	} {
		if got := of(test.stamped); got != test.want {
			t.Errorf("%s: %+v; want %+v", test.name, got, test.want)
		}
	}
}
