package awscall

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// DeadLetters returns how many messages the dead-letter queue of the queue has, about: SQS counts
// approximately.
func (q *Queue) DeadLetters(ctx context.Context) (int, error) {
	policy, err := q.attribute(ctx, q.URL, "RedrivePolicy")
	if err != nil {
		return 0, err
	}
	var redrive struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if json.Unmarshal([]byte(policy), &redrive) != nil || redrive.Target == "" {
		return 0, errors.New("the queue has no dead-letter queue")
	}
	var found struct {
		URL string `json:"QueueUrl"`
	}
	name := redrive.Target[strings.LastIndexByte(redrive.Target, ':')+1:]
	if err := q.Client.JSON(ctx, q.call("GetQueueUrl"), map[string]string{"QueueName": name}, &found); err != nil {
		return 0, err
	}
	count, err := q.attribute(ctx, found.URL, "ApproximateNumberOfMessages")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(count)
}

// attribute returns an attribute of the queue with the URL, which is in the same Region.
func (q *Queue) attribute(ctx context.Context, url, name string) (string, error) {
	var out struct{ Attributes map[string]string }
	err := q.Client.JSON(ctx, q.call("GetQueueAttributes"), map[string]any{"QueueUrl": url, "AttributeNames": []string{name}}, &out)
	return out.Attributes[name], err
}
