// Answers with the event, over scf-go-lib's messages: decoded and encoded once, as its handlers do.
package main

import (
	"context"
	"encoding/json"

	"hello/scf"
)

func echo(_ context.Context, request *scf.InvokeRequest) (any, error) {
	var event any
	if err := json.Unmarshal(request.Payload, &event); err != nil {
		return nil, err
	}
	return event, nil
}

func main() { scf.Start(echo) }
