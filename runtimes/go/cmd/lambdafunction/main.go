// A function on aws-lambda-go, which is unmodified, in its RPC mode.
package main

import (
	"context"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"hanshu/runtimes/go/work"
)

func main() {
	lambda.Start(handle)
}

func handle(ctx context.Context, event work.Event) (any, error) {
	if event.Do == "context" {
		told, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]any{
			"requestId":   told.AwsRequestID,
			"remainingMs": time.Until(deadline).Milliseconds(),
		}, nil
	}
	return work.Handle(event)
}
