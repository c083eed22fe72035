// Greets whoever is named.
package main

import (
	"context"
	"fmt"

	"hello/scf"
)

type event struct {
	Name string `json:"name"`
}

type answer struct {
	Message string `json:"message"`
}

func greet(_ context.Context, e event) (answer, error) {
	fmt.Println("greeting", e.Name)
	return answer{Message: "hello, " + e.Name + "!"}, nil
}

func main() { scf.Start(scf.JSON(greet)) }
