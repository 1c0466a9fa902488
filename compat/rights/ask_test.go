package rights

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// descriptor describes a method by its name on the wire.
func descriptor(method string) (protoreflect.MethodDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method[1:], "/", ".")))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return d.(protoreflect.MethodDescriptor), nil
}

// ask makes a call and tells what came of it: "yes", or the error.
func ask(ctx context.Context, conn *grpc.ClientConn, c *call, token string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	}
	d, err := descriptor(c.method)
	if err != nil {
		return err.Error()
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.Output().FullName())
	if err != nil {
		return err.Error()
	}
	answer := kind.New().Interface()
	if d.IsStreamingClient() || d.IsStreamingServer() {
		err = askStream(ctx, conn, c, d, answer)
	} else {
		err = conn.Invoke(ctx, c.method, c.req, answer)
	}
	if w, ok := answer.(*pb.WatchResponse); ok && w.Canceled {
		return "canceled: " + w.CancelReason
	}
	if err != nil {
		s := status.Convert(err)
		return fmt.Sprintf("%v: %s", s.Code(), s.Message())
	}
	return "yes"
}

func askStream(ctx context.Context, conn *grpc.ClientConn, c *call, d protoreflect.MethodDescriptor, answer proto.Message) error {
	kind := &grpc.StreamDesc{ServerStreams: d.IsStreamingServer(), ClientStreams: d.IsStreamingClient()}
	stream, err := conn.NewStream(ctx, kind, c.method)
	if err != nil {
		return err
	}
	// What the server has against the stream it says to who receives.
	if err := stream.SendMsg(c.req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !d.IsStreamingClient() {
		if err := stream.CloseSend(); err != nil {
			return err
		}
	}
	return stream.RecvMsg(answer)
}

// routes are the paths of a method in the JSON gateway.
func routes(method string) (paths []string) {
	d, err := descriptor(method)
	if err != nil {
		return nil
	}
	rule, ok := proto.GetExtension(d.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil
	}
	for _, r := range append([]*annotations.HttpRule{rule}, rule.AdditionalBindings...) {
		paths = append(paths, r.GetPost())
	}
	return paths
}

// askHTTP makes a call by the gateway and tells what came of it.
func askHTTP(ctx context.Context, client *http.Client, url string, c *call, token string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := protojson.Marshal(c.req)
	if err != nil {
		return err.Error()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		return err.Error()
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	var said struct {
		Message string
		Error   json.RawMessage
		Result  struct {
			Canceled     bool   `json:"canceled"`
			CancelReason string `json:"cancel_reason"`
		}
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		return fmt.Sprintf("%d: %s", resp.StatusCode, line)
	}
	if said.Result.Canceled {
		return "canceled: " + said.Result.CancelReason
	}
	if resp.StatusCode != http.StatusOK || said.Error != nil {
		return fmt.Sprintf("%d: %s %s", resp.StatusCode, said.Message, said.Error)
	}
	return "yes"
}
