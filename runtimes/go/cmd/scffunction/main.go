// A function on scf-go-lib's messages.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"hanshu/runtimes/go/scf"
	"hanshu/runtimes/go/work"
)

func main() {
	scf.Start(handle)
}

func handle(ctx context.Context, request *scf.InvokeRequest) (any, error) {
	var event work.Event
	if err := json.Unmarshal(request.Payload, &event); err != nil {
		return nil, err
	}
	if event.Do == "context" {
		return contextOf(ctx, request), nil
	}
	return work.Handle(event)
}

func contextOf(ctx context.Context, request *scf.InvokeRequest) map[string]any {
	deadline, _ := ctx.Deadline()
	return map[string]any{
		"requestId":       request.RequestId,
		"remainingMs":     time.Until(deadline).Milliseconds(),
		"functionName":    request.FunctionName,
		"functionVersion": request.FunctionVersion,
		"namespace":       request.Namespace,
		"memoryMb":        request.MemoryLimitInMb,
		"timeoutMs":       request.TimeLimitInMs,
		"region":          request.TencentcloudRegion,
		"greeting":        os.Getenv("GREETING"),
	}
}
