package reliability

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
)

// This test measures how much acknowledged data DynamoDB Local itself loses if it is killed between
// one write and the next of eight concurrent writers. Nothing is promised: the service could not
// restore such data. So far nothing was lost. (A failure of the machine is another matter.)
func TestWhatDynamoDBLocalLoses(t *testing.T) {
	t.Parallel()
	const writers = 8
	r := seedtest.Random(t)
	data := t.TempDir()
	var mu sync.Mutex
	acknowledged, lost, kills, unasked := map[string]bool{}, 0, 0, 0
	for deadline := seedtest.Until(2 * time.Second); kills < 2 || time.Now().Before(deadline); kills++ {
		db := startDatabase(t, data)
		pid := databaseOver(t, data)
		stored := table.New(db.Client(), "marketmeter")
		writing, stop := context.WithCancel(t.Context())
		enough := len(acknowledged) + 10 + r.IntN(300)
		var notKilled error
		var all sync.WaitGroup
		for writer := range writers {
			all.Go(func() {
				for n := 0; writing.Err() == nil; n++ {
					now := time.Now().UTC().Truncate(time.Millisecond)
					g := metering.Group{
						ID: fmt.Sprintf("%d-%d-%d", kills, writer, n), OrganizationID: "acme", BuyerID: "buyer", EntitlementID: "ent",
						Partner: "AWS", Status: metering.StatusCreated, CreationTime: now, LastUpdateTime: now,
					}
					if ok, err := stored.Put(writing, &g); err != nil || !ok {
						return
					}
					mu.Lock()
					acknowledged[g.ID] = true
					if len(acknowledged) == enough {
						if notKilled = syscall.Kill(pid, syscall.SIGKILL); notKilled != nil {
							stop() // nothing else ends the writers
						}
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		stop()
		if notKilled != nil {
			t.Fatal(notKilled)
		}
		if len(acknowledged) < enough {
			t.Fatalf("the writers have failed before the kill: %v", db.Err())
		}
		select {
		case <-db.Done():
		case <-time.After(patience):
			t.Fatalf("DynamoDB Local was killed, and not noticed within %s", patience)
		}

		db = startDatabase(t, data)
		there := map[string]bool{}
		for _, status := range []metering.Status{"", metering.StatusCreated} { // through two indexes
			count := 0
			for g, err := range table.New(db.Client(), "marketmeter").Groups(t.Context(), "acme", metering.GroupFilter{Status: status}) {
				if err != nil {
					t.Fatal(err)
				}
				there[g.ID] = true
				count++
			}
			if count != len(there) {
				t.Errorf("kill %d: the indexes hold %d groups and %d", kills, len(there), count)
			}
		}
		for id := range acknowledged {
			if !there[id] {
				lost++
				delete(acknowledged, id)
			}
		}
		unasked = len(there) - len(acknowledged)
		db.Stop()
	}
	t.Logf("%d kills, %d writes acknowledged, %d lost; %d more were applied and not acknowledged", kills, len(acknowledged)+lost, lost, unasked)
	if lost > 0 {
		t.Errorf("DynamoDB Local has lost %d acknowledged writes: docs/reliability.md must say so", lost)
	}
}

func startDatabase(t *testing.T, data string) *localdb.DB {
	t.Helper()
	db, err := localdb.Start(t.Context(), localdb.Options{Data: data, Jars: "../../.local", Say: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	if _, err := localdb.CreateTable(t.Context(), db.Client(), marketmeter.Template, "marketmeter"); err != nil {
		t.Fatal(err)
	}
	return db
}
