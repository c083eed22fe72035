// Calls itself through the endpoint of its own sandbox: n! is n times (n - 1)!.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"call/scf"
)

type event struct {
	N int `json:"n"`
}

type answer struct {
	Factorial int `json:"factorial"`
}

// invoke fills result with the answer of another function of this namespace.
func invoke(ctx context.Context, function string, event, result any) error {
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	url := fmt.Sprintf("%s/v1/functions/%s/invocations?namespace=%s",
		os.Getenv("HANSHU_ENDPOINT"), function, os.Getenv("SCF_NAMESPACE"))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("HANSHU_TOKEN"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return json.Unmarshal(text, result)
}

func factorial(ctx context.Context, e event) (answer, error) {
	if e.N <= 1 {
		return answer{Factorial: 1}, nil
	}
	var rest answer
	err := invoke(ctx, os.Getenv("SCF_FUNCTIONNAME"), event{N: e.N - 1}, &rest)
	return answer{Factorial: e.N * rest.Factorial}, err
}

func main() { scf.Start(scf.JSON(factorial)) }
