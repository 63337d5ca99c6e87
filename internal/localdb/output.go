package localdb

import (
	"strings"
	"sync"
)

// keptBytes is the max size of the stored output of DynamoDB Local: its end is stored.
const keptBytes = 16 << 10

// lastLines stores the end of what is written to it.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - keptBytes; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	return len(p), nil
}

// String returns the last five lines joined to one, without Java's stack frames.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(l.text)) {
		told := strings.TrimSpace(line)
		if told != "" && !strings.HasPrefix(line, "\t") {
			lines = append(lines, told)
		}
	}
	if len(lines) == 0 {
		return "it printed nothing"
	}
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}

// tellsOfTakenPort recognizes the messages of Java and of Docker for a port in use.
func (l *lastLines) tellsOfTakenPort() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.ToLower(string(l.text))
	return strings.Contains(text, "address already in use") ||
		strings.Contains(text, "port is already allocated")
}
