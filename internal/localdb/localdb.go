// Package localdb runs DynamoDB Local for `make run` and the tests, and creates the table from
// template.yaml.
//
// DynamoDB Local is a Java program. It runs on Java 17 and Maven if they are installed, else in
// Docker. It requires no password, so it listens on loopback alone, and only its user can read its
// data. For the containers of `sam local` it also listens on the address at which they reach this
// machine.
//
// The package needs Unix: flock, signals, process groups.
package localdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

// The region and credentials of a client of DynamoDB Local, which accepts any letters and digits.
const (
	Region          = "us-east-1"
	AccessKeyID     = "local"
	SecretAccessKey = "local"
)

const (
	startTimeout = time.Minute     // from the start of the process to its first response
	stopTimeout  = 5 * time.Second // from TERM to KILL
	portTries    = 5
)

// Options configure DynamoDB Local.
type Options struct {
	Data string // folder of the database, created if it does not exist; empty keeps everything in memory
	Jars string // folder of DynamoDB Local itself, which is fetched if it does not exist

	Containers bool // it also listens on the address at which the containers of this machine's Docker reach it

	Say func(string) // is called before a step that takes long
}

// DB is a running DynamoDB Local.
type DB struct {
	Endpoint string

	stop context.CancelFunc
	done chan struct{}
	err  error // why it stopped by itself; final when done is closed
}

// Start runs DynamoDB Local on a free port and returns once it responds. The end of ctx ends only
// the start: a started database runs until Stop, so that it can outlive the requests under way. If
// this process is killed, Linux ends the database with it; on other systems the next Start with the
// same Data ends it.
//
// It returns an error of one line, which says what to do, if neither Java nor Docker can run it, if
// another process uses Data, or if the database ends before it responds (with the last lines of its
// output).
func Start(ctx context.Context, o Options) (*DB, error) {
	unlock := func() {}
	if o.Data != "" {
		data, err := filepath.Abs(o.Data)
		if err != nil {
			return nil, err
		}
		o.Data = data
		if unlock, err = claim(data); err != nil {
			return nil, err
		}
	}
	runner, err := findRunner(ctx, o)
	var db *DB
	if err == nil {
		db, err = startWith(ctx, runner, o.Data, unlock)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return db, nil
}

// startWith starts the database. If it returns a DB, unlock is called after the database has ended.
func startWith(ctx context.Context, r runner, data string, unlock func()) (*DB, error) {
	for range portTries {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		r.clean(data)
		db, err := launch(ctx, r, port, data, unlock)
		if !errors.Is(err, errPortTaken) {
			return db, err
		}
	}
	return nil, fmt.Errorf("DynamoDB Local found no free port in %d tries", portTries)
}

// A runner is one way to run DynamoDB Local: as a Java program, or in a container.
type runner interface {
	// command runs the database on port, over the folder data or, if that is empty, in memory.
	command(port int, data string) []string
	// clean ends what a killed process may have left running over data.
	clean(data string)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("no free port for DynamoDB Local: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// launch starts the process and waits for its first response. If it returns a DB, unlock is called
// after the process has ended.
func launch(ctx context.Context, r runner, port int, data string, unlock func()) (*DB, error) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	started := context.AfterFunc(ctx, stop)
	db := &DB{
		Endpoint: fmt.Sprintf("http://127.0.0.1:%d", port),
		stop:     stop,
		done:     make(chan struct{}),
	}
	var output lastLines
	cmd := newCommand(life, r.command(port, data), &output)
	ended, err := run(cmd)
	if err != nil {
		stop()
		return nil, fmt.Errorf("DynamoDB Local could not be started: %w", err)
	}
	if data != "" {
		err = writePID(data, cmd.Process.Pid)
	}
	if err == nil {
		err = db.awaitAnswer(ctx, ended)
	}
	if err != nil || !started() {
		stop()
		<-ended
		r.clean(data)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, startFailure(err, &output)
	}
	go func() {
		err := <-ended
		if life.Err() == nil {
			db.err = fmt.Errorf("DynamoDB Local has stopped (%s): %s", exitText(err), &output)
		}
		r.clean(data)
		unlock()
		stop()
		close(db.done)
	}()
	return db, nil
}

func newCommand(life context.Context, command []string, output *lastLines) *exec.Cmd {
	cmd := exec.CommandContext(life, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	return cmd
}

// run starts cmd and returns a channel that receives once how it ended, and is then closed. It
// holds one thread for cmd: the kernel takes the end of the thread that forked for the parent's
// (Pdeathsig).
func run(cmd *exec.Cmd) (ended <-chan error, err error) {
	started := make(chan error)
	end := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			end <- cmd.Wait()
		}
		close(end)
	}()
	return end, <-started
}

var (
	errPortTaken = errors.New("the port was taken meanwhile")
	errSilent    = fmt.Errorf("it did not respond within %s", startTimeout)
)

// endedError is returned if the process ended before it responded.
type endedError struct{ how error }

func (e endedError) Error() string { return "it ended at once (" + exitText(e.how) + ")" }

func (db *DB) awaitAnswer(ctx context.Context, ended <-chan error) error {
	deadline := time.After(startTimeout)
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	client := db.Client()
	for {
		select {
		case err := <-ended:
			return endedError{err}
		case <-deadline:
			return errSilent
		case <-again.C:
			if !answers(ctx, client) {
				continue
			}
			select {
			case err := <-ended: // another process has the port, and that responded
				return endedError{err}
			default:
				return nil
			}
		}
	}
}

func answers(ctx context.Context, client *dynamodb.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := client.ListTables(ctx, nil, func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} })
	return err == nil
}

func startFailure(err error, output *lastLines) error {
	if _, ok := errors.AsType[endedError](err); !ok && !errors.Is(err, errSilent) {
		return err
	}
	if output.tellsOfTakenPort() {
		return errPortTaken
	}
	return fmt.Errorf("DynamoDB Local does not run: %w: %s", err, output)
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// Client returns a client of the database.
func (db *DB) Client() *dynamodb.Client { return NewClient(db.Endpoint) }

// NewClient returns a client of the DynamoDB Local at endpoint.
func NewClient(endpoint string) *dynamodb.Client {
	return dynamoclient.New(dynamoclient.Options{
		Region:      Region,
		Endpoint:    endpoint,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKeyID, SecretAccessKey, ""),
	})
}

// Done is closed when the database has ended, for whatever reason.
func (db *DB) Done() <-chan struct{} { return db.done }

// Err returns why the database ended by itself. It is nil while it runs, and after Stop.
func (db *DB) Err() error {
	select {
	case <-db.done:
		return db.err
	default:
		return nil
	}
}

// Stop ends the database, by force after a few seconds, and returns after it has ended.
func (db *DB) Stop() {
	db.stop()
	<-db.done
}
