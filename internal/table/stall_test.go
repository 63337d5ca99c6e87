package table_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// Each write is carried out and its response stalls, so that the client sends it again. It succeeds
// as if it had been sent once (decision 7). So does the read before a change of a config.
func TestWrites_AreSafeToRetryAfterAStall(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	direct := table.New(client, name)
	put(t, direct, group("to-delete", metering.StatusCreated))
	old, revoked, added := newKey("o1"), newKey("o1"), newKey("o1")
	addKey(t, direct, old)
	addKey(t, direct, revoked)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	var all sync.WaitGroup
	over := func(what string, twice int, write func(*table.Table) (ok bool, err error)) {
		endpoint, requests := tabletest.StallingProxy(t, func(n int) tabletest.Stall {
			if n%2 == 1 {
				return nil
			}
			return tabletest.Stalls["before the last byte of the body"]
		})
		stalling := table.New(dynamoclient.New(dynamoclient.Options{
			Region: localdb.Region, Endpoint: endpoint, Transport: dynamoclient.NewTransport(3 * time.Second),
			Credentials: credentials.NewStaticCredentialsProvider(localdb.AccessKeyID, localdb.SecretAccessKey, ""),
		}), name)
		all.Go(func() {
			if ok, err := write(stalling); err != nil || !ok || requests() < 2*twice {
				t.Errorf("%s, in %d requests: %v, %v; want it done, in %d or more", what, requests(), ok, err, 2*twice)
			}
		})
	}
	over("put", 1, func(stalling *table.Table) (bool, error) {
		return stalling.Put(ctx, group("to-put", metering.StatusCreated))
	})
	over("delete", 1, func(stalling *table.Table) (bool, error) {
		g, err := stalling.Delete(ctx, "o1", "to-delete", "", now)
		return g.Status == metering.StatusDeleted, err
	})
	over("raise the serial counter", 1, func(stalling *table.Table) (bool, error) { return true, stalling.RaiseSerial(ctx, "o1", 42) })
	over("add a key", 1, func(stalling *table.Table) (bool, error) { return true, stalling.AddAPIKey(ctx, added) })
	over("rotate a key", 1, func(stalling *table.Table) (bool, error) {
		return true, stalling.RotateAPIKey(ctx, old.Hash, now.Add(time.Minute), newKey("o1"))
	})
	over("revoke a key", 1, func(stalling *table.Table) (bool, error) {
		r, err := stalling.RevokeAPIKey(ctx, "o1", revoked.Hash, now, "an operator")
		return r.RevocationTime.Equal(now), err
	})
	over("change the config", 2, func(stalling *table.Table) (bool, error) {
		version, written, err := stalling.ChangeConfig(ctx, "o1", now, setFlag("AWS"))
		return written && version.Version == 1, err
	})
	all.Wait()
	if stored, err := direct.Config(ctx, "o1"); err != nil || stored.Version != 1 {
		t.Errorf("the stored config: %+v, %v", stored, err)
	}
	if serial, err := direct.Serial(ctx, "o1"); err != nil || serial != 42 {
		t.Errorf("the serial counter is %d, %v", serial, err)
	}
}
