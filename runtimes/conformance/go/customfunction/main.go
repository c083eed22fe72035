// The menu as a compiled custom runtime, over the HTTP runtime API.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"hanshu/runtimes/conformance/menu"
)

func main() {
	fmt.Println("loaded")
	api := "http://" + os.Getenv("SCF_RUNTIME_API") + ":" + os.Getenv("SCF_RUNTIME_API_PORT")
	must(post(api+"/runtime/init/ready", []byte(" ")))
	for {
		response, err := http.Get(api + "/runtime/invocation/next")
		must(err)
		event, err := io.ReadAll(response.Body)
		must(err)
		response.Body.Close()
		must(answer(api, event))
	}
}

func answer(api string, event []byte) error {
	result, err := menu.Handle(event)
	if err != nil {
		return post(api+"/runtime/invocation/error", []byte(err.Error()))
	}
	body, err := json.Marshal(result)
	if err != nil {
		return post(api+"/runtime/invocation/error", []byte(err.Error()))
	}
	return post(api+"/runtime/invocation/response", body)
}

func post(url string, body []byte) error {
	response, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Body.Close()
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
