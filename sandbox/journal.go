package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// A journal is a file of lines, each the checksum and the JSON of one event. An event is written
// and synced before the response that depends on it is sent. Waiting events share a sync: group
// commit.
type journal struct {
	file *os.File

	mu      sync.Mutex
	changed *sync.Cond
	pending []byte // not yet written
	restart bool   // truncate the file before pending is written
	added   uint64 // number of events so far
	synced  uint64 // number of events synced
	closed  bool
	err     error // the first failure; later events are not safe
	done    chan struct{}
}

// openJournal opens or creates the file and replays its events. A tail without a newline, as a kill
// may leave it, was never acknowledged: it is cut off. A line with a wrong checksum is an error,
// even the last one: it may be an event that was acknowledged. A power cut in the middle of a batch
// may leave such a line too, because blocks reach the disk in any order.
func openJournal(name string, replay func(event []byte) error) (*journal, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*journal, error) {
		return nil, fmt.Errorf("journal %s: %w", name, errors.Join(err, file.Close()))
	}
	if err := lock(file); err != nil {
		return fail(fmt.Errorf("another sandbox uses it: %w", err))
	}
	if err := syncFolder(filepath.Dir(name)); err != nil {
		return fail(err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return fail(err)
	}
	whole, err := readLines(content, replay)
	if err != nil {
		return fail(err)
	}
	if whole < len(content) {
		if err := file.Truncate(int64(whole)); err != nil {
			return fail(err)
		}
	}
	j := &journal{file: file, done: make(chan struct{})}
	j.changed = sync.NewCond(&j.mu)
	go j.write()
	return j, nil
}

// readLines replays the complete lines of content and returns their length in bytes.
func readLines(content []byte, replay func(event []byte) error) (whole int, err error) {
	for {
		end := bytes.IndexByte(content[whole:], '\n')
		if end < 0 {
			return whole, nil
		}
		event, ok := readLine(content[whole : whole+end])
		if !ok {
			return 0, fmt.Errorf("the line at byte %d is damaged: move the file away to start empty", whole)
		}
		if err := replay(event); err != nil {
			return 0, fmt.Errorf("the event at byte %d: %w", whole, err)
		}
		whole += end + 1
	}
}

const checksumLength = 8 // followed by a space

func appendLine(to, event []byte) []byte {
	to = fmt.Appendf(to, "%0*x ", checksumLength, crc32.ChecksumIEEE(event))
	return append(append(to, event...), '\n')
}

// readLine returns the event of a line without its newline, if the checksum is right.
func readLine(line []byte) (event []byte, ok bool) {
	if len(line) <= checksumLength || line[checksumLength] != ' ' {
		return nil, false
	}
	event = line[checksumLength+1:]
	return event, string(line[:checksumLength]) == fmt.Sprintf("%0*x", checksumLength, crc32.ChecksumIEEE(event))
}

// add queues an event to be written and returns its number for wait.
func (j *journal) add(event []byte) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = appendLine(j.pending, event)
	j.added++
	j.changed.Broadcast()
	return j.added
}

// empty discards all events. A caller that waits for one of them waits until the file is empty.
func (j *journal) empty() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending, j.restart = nil, true
	j.added++
	j.changed.Broadcast()
	return j.added
}

// last returns the number of the newest event.
func (j *journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.added
}

// wait returns nil when the event is synced, or the failure that prevents it.
func (j *journal) wait(event uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.synced < event && j.err == nil {
		j.changed.Wait()
	}
	if j.synced >= event {
		return nil
	}
	return j.err
}

// write writes and syncs all pending events in one batch, until the journal is closed.
func (j *journal) write() {
	defer close(j.done)
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		for j.synced == j.added && !j.closed {
			j.changed.Wait()
		}
		if j.synced == j.added || j.err != nil {
			return
		}
		batch, upTo, restart := j.pending, j.added, j.restart
		j.pending, j.restart = nil, false
		j.mu.Unlock()
		var err error
		if restart {
			err = j.file.Truncate(0)
		}
		if err == nil {
			_, err = j.file.Write(batch)
		}
		if err == nil {
			err = j.file.Sync()
		}
		j.mu.Lock()
		if err != nil {
			j.err = fmt.Errorf("the journal could not be written: %w", err)
			j.changed.Broadcast()
			return
		}
		j.synced = upTo
		j.changed.Broadcast()
	}
}

// close writes the pending events and closes the file.
func (j *journal) close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.changed.Broadcast()
	j.mu.Unlock()
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.err
	if j.err == nil {
		j.err = errors.New("the sandbox is closed")
		j.changed.Broadcast()
	}
	return errors.Join(err, j.file.Close())
}
