package localserver

import "testing"

func TestSandboxAddr_IsTenPortsAboveTheAPI(t *testing.T) {
	for api, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8090", "0.0.0.0:9000": "127.0.0.1:9010", "127.0.0.1:0": "127.0.0.1:0", ":8081": "127.0.0.1:8091", "x": DefaultSandboxAddr,
		"127.0.0.1:65530": DefaultSandboxAddr,
	} {
		if got := sandboxAddr(func(string) string { return "" }, api); got != want {
			t.Errorf("ADDR=%s: %s, want %s", api, got, want)
		}
	}
	if got := sandboxAddr(func(string) string { return "127.0.0.1:7" }, "127.0.0.1:8080"); got != "127.0.0.1:7" {
		t.Errorf("SANDBOX_ADDR is not taken: %s", got)
	}
}
