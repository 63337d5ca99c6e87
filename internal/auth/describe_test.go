package auth

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/marketmeter/marketmeter"
)

// The scripts of cmd/marketmeter test the sentences.

func TestGatewayLag_IsTheTemplates(t *testing.T) {
	t.Parallel()
	set := regexp.MustCompile(`ReauthorizeEvery: (\d+)\n`).FindSubmatch(marketmeter.Template)
	if set == nil || string(set[1]) != strconv.Itoa(int(gatewayLag.Seconds())) {
		t.Errorf("the template has %q; the sentences say %s", set, gatewayLag)
	}
}
