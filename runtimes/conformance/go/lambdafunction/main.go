// The menu on aws-lambda-go, which is unmodified, in its RPC mode.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/aws/aws-lambda-go/lambda"

	"hanshu/runtimes/conformance/menu"
)

func main() {
	fmt.Println("loaded")
	lambda.Start(func(event json.RawMessage) (any, error) { return menu.Handle(event) })
}
