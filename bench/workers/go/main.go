// The ceiling's Go worker: net/rpc's own loop straight on the frames of worker.py beside it.
//
// There is no second hop and no gob: what is left is net/rpc's dispatch and one decoding and encoding
// of the event, so this is harder to get near than a net/rpc connection would be.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/rpc"
	"os"
)

type Request struct{ Payload []byte }
type Response struct{ Payload []byte }

// Function is the service.
type Function struct{}

// Invoke answers with the event.
func (Function) Invoke(request *Request, response *Response) error {
	var event any
	if err := json.Unmarshal(request.Payload, &event); err != nil {
		return err
	}
	payload, err := json.Marshal(event)
	response.Payload = payload
	return err
}

// frames is net/rpc's codec for `length: u32, id: u64` and a body.
type frames struct {
	line   net.Conn
	reader *bufio.Reader
	length uint32
}

func (f *frames) ReadRequestHeader(request *rpc.Request) error {
	var head [12]byte
	if _, err := io.ReadFull(f.reader, head[:]); err != nil {
		return err
	}
	f.length = binary.LittleEndian.Uint32(head[:4])
	request.Seq = binary.LittleEndian.Uint64(head[4:])
	request.ServiceMethod = "Function.Invoke"
	return nil
}

func (f *frames) ReadRequestBody(body any) error {
	payload := make([]byte, f.length)
	if _, err := io.ReadFull(f.reader, payload); err != nil {
		return err
	}
	if request, ok := body.(*Request); ok {
		request.Payload = payload
	}
	return nil
}

func (f *frames) WriteResponse(response *rpc.Response, body any) error {
	var payload []byte
	if answer, ok := body.(*Response); ok {
		payload = answer.Payload
	}
	frame := make([]byte, 12, 12+len(payload))
	binary.LittleEndian.PutUint32(frame, uint32(len(payload)))
	binary.LittleEndian.PutUint64(frame[4:], response.Seq)
	_, err := f.line.Write(append(frame, payload...))
	return err
}

func (f *frames) Close() error { return f.line.Close() }

func main() {
	line, err := net.Dial("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	if _, err := line.Write(make([]byte, 12)); err != nil {
		panic(err)
	}
	if err := rpc.Register(Function{}); err != nil {
		panic(err)
	}
	rpc.ServeCodec(&frames{line: line, reader: bufio.NewReaderSize(line, 65536)})
}
