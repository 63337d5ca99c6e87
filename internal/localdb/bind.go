package localdb

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// launcherSource is the Java program that binds DynamoDB Local to the given addresses. DynamoDB
// Local has an option for its port, but none for its address.
//
//go:embed BoundServerRunner.java
var launcherSource []byte

// mainClass is the launcher's class. Its name ends with that of DynamoDB Local's own main class,
// which earlier versions started, so a leftover of an earlier version is recognized too.
const mainClass = "BoundServerRunner"

// javac is how Java runs its compiler, which a JRE lacks.
var javac = []string{"-m", "jdk.compiler/com.sun.tools.javac.Main"}

// launcherDir is the folder of the compiled launcher, beside the jars. Each version of the source
// has its own folder.
func launcherDir(jars string) string {
	sum := sha256.Sum256(launcherSource)
	return fmt.Sprintf("%s-launcher-%x", jars, sum[:6])
}

// findCompiler returns an error if java has no compiler.
func findCompiler(ctx context.Context, java string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, java, append(javac, "-version")...).Run(); err != nil {
		return fmt.Errorf("%s has no compiler (it is a JRE, and a JDK is needed)", java)
	}
	return nil
}

// compile creates the launcher's folder, once and completely or not at all. Running the source
// instead would compile it at each start, which would then take half as long again.
func compile(ctx context.Context, java, jars string) error {
	dir := launcherDir(jars)
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+"-*.part")
	if err != nil {
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	defer func() { _ = os.RemoveAll(part) }()
	source := filepath.Join(part, mainClass+".java")
	if err := os.WriteFile(source, launcherSource, 0o600); err != nil {
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	all, _ := filepath.Glob(filepath.Join(jars, "*.jar"))
	var output lastLines
	cmd := exec.CommandContext(ctx, java, append(javac, "--release", fmt.Sprint(minJava), "-cp",
		strings.Join(all, string(os.PathListSeparator)), "-d", part, source)...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("compiling what binds DynamoDB Local %s to loopback: %w: %s", version, err, &output)
	}
	if err := os.Rename(part, dir); err != nil && !fetched(dir) { // another process may have created it meanwhile
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	return nil
}

const loopback = "127.0.0.1"

// bridgeAddresses returns the addresses at which containers of this machine's Docker engine reach
// this machine: those of the bridge of its default network, which it calls host-gateway. The bridge
// of Docker Desktop is in its own virtual machine, which forwards to loopback: then there are none.
func bridgeAddresses(ctx context.Context) ([]string, error) {
	docker, err := findDocker(ctx)
	if err != nil {
		return nil, fmt.Errorf("containers are to reach DynamoDB Local, and %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	name, err := exec.CommandContext(ctx, docker, "network", "inspect", "bridge",
		"--format", `{{index .Options "com.docker.network.bridge.name"}}`).Output()
	if err != nil {
		return nil, fmt.Errorf("containers are to reach DynamoDB Local, and docker does not say where: %w", err)
	}
	bridge, err := net.InterfaceByName(strings.TrimSpace(string(name)))
	if err != nil {
		return nil, nil //nolint:nilerr // it is not on this machine
	}
	own, err := bridge.Addrs()
	if err != nil {
		return nil, fmt.Errorf("the addresses of the bridge %s: %w", bridge.Name, err)
	}
	var addresses []string
	for _, address := range own {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() && network.IP.String() != loopback {
			addresses = append(addresses, network.IP.String())
		}
	}
	return addresses, nil
}
