package bench

import (
	"net/http/httptest"
	"os"
	"testing"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
)

// BenchmarkStart measures how long each function takes from the start of its process until it asks for its
// first event, beside a function that does nothing: in turns, each time a new process. DynamoDB answers
// the call that a function makes before at once, over HTTP without TLS.
func BenchmarkStart(b *testing.B) {
	server := httptest.NewServer(serverOf(newRecording(), os.Getenv("DYNAMODB_ENDPOINT")))
	defer server.Close()
	sides := []func() float64{}
	for _, program := range append([]string{measured + "hello"}, ourPrograms()...) {
		path := buildHere(b, program)
		sides = append(sides, func() float64 {
			p := start(b, path, server.URL)
			p.stop()
			return p.Ready.Seconds() * 1000
		})
	}
	for _, warm := range sides {
		warm() // the first start reads the program from the disk
	}
	m := figure.InTurns(figure.Rounds(b, 101), sides...)
	for i, function := range functions {
		b.Logf("medians: %s %.2f ms, hello %.2f ms", function, m.Median(1+i), m.Median(0))
		figure.Print("init-vs-hello-"+function, m.Ratio(1+i, 0), "times", "<= 1.6")
	}
}

func ourPrograms() (all []string) {
	for _, function := range functions {
		all = append(all, ours+function)
	}
	return all
}

// BenchmarkSize weighs the functions as `sam build` makes them for the processor they are deployed on.
func BenchmarkSize(b *testing.B) {
	for _, function := range functions {
		program, err := os.Stat(build(b, ours+function, "arm64"))
		if err != nil {
			b.Fatal(err)
		}
		figure.Print("binary-"+function, float64(program.Size())/1e6, "MB", "<= 9")
	}
}
