// The menu on scf-go-lib's messages.
package main

import (
	"context"
	"fmt"

	"hanshu/runtimes/conformance/menu"
	"hanshu/runtimes/go/scf"
)

func main() {
	fmt.Println("loaded")
	scf.Start(func(_ context.Context, request *scf.InvokeRequest) (any, error) {
		return menu.Handle(request.Payload)
	})
}
