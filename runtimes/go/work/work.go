// Package work is what the test functions do, whichever library serves them.
package work

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Event says what to do.
type Event struct {
	Do   string `json:"do"`
	Text string `json:"text"`
	Size int    `json:"size"`
}

// Handle does it.
func Handle(event Event) (any, error) {
	switch event.Do {
	case "echo":
		return event.Text, nil
	case "nothing":
		return nil, nil
	case "fill":
		return strings.Repeat("x", event.Size), nil
	case "print":
		fmt.Println(event.Text)
		return nil, nil
	case "fail":
		return nil, errors.New(event.Text)
	case "panic":
		panic(event.Text)
	case "exit":
		os.Exit(3)
	case "hang":
		time.Sleep(time.Hour)
	}
	return nil, fmt.Errorf("cannot do %q", event.Do)
}
