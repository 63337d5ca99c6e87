package operate_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// sqs is moto's.
type sqs struct {
	t   *testing.T
	url string
}

func (s sqs) call(operation string, in, out any) {
	s.t.Helper()
	client := awscall.Client{
		Credentials: awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
			return awssdk.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
		HTTP: exchange.NewClient(nil, 0), Now: time.Now,
	}
	err := client.JSON(s.t.Context(), awscall.Call{
		URL: s.url, Region: "us-east-1", Service: "sqs", ContentType: "application/x-amz-json-1.0", Target: "AmazonSQS." + operation,
	}, in, out)
	if err != nil {
		s.t.Fatal(operation, err)
	}
}

func (s sqs) create(name string, attributes map[string]string) (url string) {
	s.t.Helper()
	var out struct {
		URL string `json:"QueueUrl"`
	}
	s.call("CreateQueue", map[string]any{"QueueName": name, "Attributes": attributes}, &out)
	return out.URL
}

// On a table of a stack, a run enqueues hints for its workers, and the status counts dead letters.
func TestRun_EnqueuesHintsForTheWorkersOfAStack(t *testing.T) {
	t.Parallel()
	moto := sqs{t, programtest.Moto(t)}
	w := newWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	w.Report(worldtest.OnAzure, rt.Hour.Add(-2*time.Hour), "d0 3")
	urls := map[string]string{}
	for _, name := range []string{"plan", "submit"} {
		dead := moto.create(name+"-dead", nil)
		redrive, err := json.Marshal(map[string]any{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:" + name + "-dead", "maxReceiveCount": 5})
		if err != nil {
			t.Fatal(err)
		}
		urls[name] = moto.create(name, map[string]string{"RedrivePolicy": string(redrive)})
		moto.call("SendMessage", map[string]string{"QueueUrl": dead, "MessageBody": "dead"}, &struct{}{})
	}
	r := request(t, w)
	r.Target.At = "us-east-1"
	r.Getenv = environment("SANDBOX_URL", w.URL, "PLAN_QUEUE_URL", urls["plan"], "SUBMIT_QUEUE_URL", urls["submit"])

	text, encoded := do(t, operate.Run, r)
	has(t, text, "Nothing was sent from here: the table is at us-east-1", "to plan 2, to submit 0")
	has(t, encoded, `"places":2,"lanes":0`)
	var out struct{ Messages []struct{ Body string } }
	moto.call("ReceiveMessage", map[string]any{"QueueUrl": urls["plan"], "MaxNumberOfMessages": 10}, &out)
	found := map[string]bool{}
	for _, m := range out.Messages {
		hint, err := reporting.DecodeHint(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		found[string(hint.Place.Entitlement)] = hint.Place.Hour.Equal(rt.Hour.Add(-2 * time.Hour))
	}
	if len(found) != 2 || !found["ent-aws"] || !found["ent-azure"] {
		t.Errorf("hints: %v", found)
	}
	if n := len(w.Calls("BatchMeterUsage")); n > 0 {
		t.Errorf("%d calls were made", n)
	}
	text, encoded = do(t, operate.ReadStatus, r)
	has(t, text, "Dead letters: 2")
	has(t, encoded, `"deadLetters":2`)

	do(t, operate.Pause, r)
	result, err := operate.Run(t.Context(), r)
	if err != nil || !result.Incomplete() {
		t.Errorf("while it is paused: %+v, %v", result, err)
	}
}
