// Package scf serves a function the way scf-go-lib does: Go's net/rpc, the service `Function` with
// the methods Ping and Invoke, and messages of the same names and fields. It shares no code with
// that library and needs nothing but Go's own: one file to copy into a project.
package scf

import (
	"context"
	"encoding/json"
	"net"
	"net/rpc"
	"os"
	"reflect"
	"runtime"
	"time"
)

type PingRequest struct{}

type PingResponse struct{}

type InvokeRequest_Timestamp struct {
	Seconds int64
	Nanos   int64
}

type InvokeRequest struct {
	Payload               []byte
	RequestId             string
	TraceId               string
	Deadline              InvokeRequest_Timestamp
	InvokedFunctionUnique string
	ClientContext         []byte
	Namespace             string
	FunctionName          string
	FunctionVersion       string
	MemoryLimitInMb       int32
	TimeLimitInMs         int32
	Environment           string
	TencentcloudRegion    string
	TencentcloudAppID     string
	TencentcloudUin       string
	FunctionTrace         string
}

type InvokeResponse struct {
	Payload []byte
	Error   *InvokeResponse_Error
}

type InvokeResponse_Error struct {
	Message    string
	Type       string
	StackTrace []*InvokeResponse_Error_StackFrame
	ShouldExit bool
}

type InvokeResponse_Error_StackFrame struct {
	Path  string
	Line  int32
	Label string
}

// Handler turns an event into a value that can be written as JSON.
type Handler func(ctx context.Context, request *InvokeRequest) (any, error)

// JSON makes a Handler of a function whose event and answer are JSON.
func JSON[I, O any](handle func(ctx context.Context, event I) (O, error)) Handler {
	return func(ctx context.Context, request *InvokeRequest) (any, error) {
		var event I
		if err := json.Unmarshal(request.Payload, &event); err != nil {
			return nil, err
		}
		return handle(ctx, event)
	}
}

// Function is the service.
type Function struct {
	handler Handler
}

// Start serves until the process ends.
func Start(handler Handler) {
	listener, err := net.Listen("tcp", "0.0.0.0:"+os.Getenv("_LAMBDA_SERVER_PORT"))
	if err != nil {
		panic(err)
	}
	server := rpc.NewServer()
	if err := server.Register(&Function{handler: handler}); err != nil {
		panic(err)
	}
	server.Accept(listener)
}

// Ping says that the function listens.
func (f *Function) Ping(request *PingRequest, response *PingResponse) error {
	return nil
}

// Invoke runs the handler on one event. What it raises is part of the response.
func (f *Function) Invoke(request *InvokeRequest, response *InvokeResponse) error {
	defer func() {
		if raised := recover(); raised != nil {
			response.Error = panicked(raised)
		}
	}()
	var environment map[string]string
	if request.Environment != "" {
		if err := json.Unmarshal([]byte(request.Environment), &environment); err != nil {
			response.Error = failed(err)
			return nil
		}
	}
	for name, value := range environment {
		os.Setenv(name, value)
	}
	deadline := time.Unix(request.Deadline.Seconds, request.Deadline.Nanos)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	value, err := f.handler(ctx, request)
	if err != nil {
		response.Error = failed(err)
		return nil
	}
	response.Payload, err = json.Marshal(value)
	if err != nil {
		response.Error = failed(err)
	}
	return nil
}

func failed(err error) *InvokeResponse_Error {
	return &InvokeResponse_Error{Message: err.Error(), Type: nameOf(err)}
}

func panicked(raised any) *InvokeResponse_Error {
	message, ok := raised.(string)
	if err, isError := raised.(error); isError {
		message, ok = err.Error(), true
	}
	if !ok {
		message = "panic"
	}
	callers := make([]uintptr, 32)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	var stack []*InvokeResponse_Error_StackFrame
	for {
		frame, more := frames.Next()
		stack = append(stack, &InvokeResponse_Error_StackFrame{
			Path: frame.File, Line: int32(frame.Line), Label: frame.Function,
		})
		if !more {
			break
		}
	}
	return &InvokeResponse_Error{
		Message: message, Type: nameOf(raised), StackTrace: stack, ShouldExit: true,
	}
}

func nameOf(value any) string {
	kind := reflect.TypeOf(value)
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	return kind.Name()
}
