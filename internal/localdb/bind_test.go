package localdb

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func portOf(t *testing.T, db *DB) string {
	t.Helper()
	u, err := url.Parse(db.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// ownAddresses returns the addresses of this machine that a client can dial as they are.
func ownAddresses(t *testing.T) (all []string) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
			all = append(all, network.IP.String())
		}
	}
	return all
}

// listeners returns the addresses of this machine on which a process listens on the port, as the
// kernel reports them; nil if it reports none.
func listeners(t *testing.T, port string) (all []string) {
	t.Helper()
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "0A" || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) {
				continue
			}
			all = append(all, kernelAddress(t, strings.Split(fields[1], ":")[0]))
		}
	}
	slices.Sort(all)
	return all
}

// kernelAddress reads words of four bytes in hexadecimal. The bytes of each are in the processor's
// order: little-endian.
func kernelAddress(t *testing.T, digits string) string {
	t.Helper()
	var ip net.IP
	for at := 0; at < len(digits); at += 8 {
		word, err := strconv.ParseUint(digits[at:at+8], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		ip = append(ip, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	return ip.String()
}

// wantListeners wants the database to be reachable at these addresses of the machine and at no
// other.
func wantListeners(t *testing.T, db *DB, want ...string) {
	t.Helper()
	port := portOf(t, db)
	for _, address := range ownAddresses(t) {
		connection, err := net.Dial("tcp", net.JoinHostPort(address, port))
		if err == nil {
			connection.Close()
		}
		if got := err == nil; got != slices.Contains(want, address) {
			t.Errorf("at %s it listens: %v (%v); want %v", address, got, err, !got)
		}
	}
	if got := listeners(t, port); got != nil && !slices.Equal(got, want) {
		t.Errorf("the kernel has it listen at %q; want %q", got, want)
	}
}

func TestStart_ListensOnLoopbackAlone(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"in memory": "", "over a folder": filepath.Join(t.TempDir(), "data")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantListeners(t, startedOver(t, data), loopback)
		})
	}
}

// The engine's bridge is the machine's loopback interface, which has another address than
// 127.0.0.1; without IPv6 it is another interface of the machine.
func TestStart_ListensForContainersToo(t *testing.T) {
	javaFor(t)
	bridge, want := anotherInterface(t)
	dockerWithBridge(t, bridge)
	db, err := Start(t.Context(), Options{Jars: jars, Containers: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	wantListeners(t, db, want...)
}

// Docker Desktop has its bridge in a virtual machine.
func TestBridgeAddresses_AreNoneIfTheBridgeIsElsewhere(t *testing.T) {
	dockerWithBridge(t, "not-here0")
	if got, err := bridgeAddresses(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("%q, %v; want none", got, err)
	}
}

func dockerWithBridge(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" != network ] || echo " + name + "\n"
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// anotherInterface returns an interface with an address beside 127.0.0.1, and the addresses of a
// database that listens there too.
func anotherInterface(t *testing.T) (name string, listening []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all { // loopback is the first
		addresses, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		listening := []string{loopback}
		for _, address := range addresses {
			ip := address.(*net.IPNet).IP
			if ip.String() != loopback && !ip.IsLinkLocalUnicast() {
				listening = append(listening, ip.String())
			}
		}
		if len(listening) > 1 {
			slices.Sort(listening)
			return i.Name, listening
		}
	}
	t.Fatal("this machine has no address but 127.0.0.1, not even ::1")
	return "", nil
}

func TestStart_NeedsDockerForContainers(t *testing.T) {
	for what, script := range map[string]string{"no engine": "exit 1", "no such network": `[ "$1" != network ]`} {
		programs(t, map[string]string{"docker": script})
		if _, err := Start(t.Context(), Options{Containers: true, Jars: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "containers are to reach DynamoDB Local") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The launcher ends before the database could listen on another address.
func TestStart_FailsIfTheAddressCannotBeBound(t *testing.T) {
	t.Parallel()
	java := javaFor(t)
	java.listen = []string{"203.0.113.7"}
	_, err := startWith(t.Context(), java, "", func() {})
	if err == nil || !strings.Contains(err.Error(), "DynamoDB Local can't be bound to 203.0.113.7") {
		t.Errorf("startWith: %v", err)
	}
}
