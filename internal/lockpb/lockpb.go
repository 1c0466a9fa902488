// Package lockpb describes etcd's services v3lockpb.Lock and
// v3electionpb.Election and their messages (api/lock.proto, api/election.proto).
//
// etcd's generated types are part of its server, and registering types of the
// same names a second time would make a program that links both panic. So
// nothing here is registered anywhere: descriptors are made when asked for, and
// messages are dynamic.
package lockpb

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Schema holds the descriptors of both services. It finds descriptors of its
// own files and of the global registry ([protodesc.Resolver]). It is never
// changed once made.
type Schema struct {
	Lock, Election protoreflect.ServiceDescriptor
	files          *protoregistry.Files
}

// New makes the descriptors.
func New() *Schema {
	s := &Schema{files: new(protoregistry.Files)}
	s.Lock = s.add(lockFile())
	s.Election = s.add(electionFile())
	return s
}

// add makes the descriptor of a file and returns its service's. The files are
// constants, so an error is a bug.
func (s *Schema) add(p *descriptorpb.FileDescriptorProto) protoreflect.ServiceDescriptor {
	f, err := protodesc.NewFile(p, protoregistry.GlobalFiles)
	if err == nil {
		err = s.files.RegisterFile(f)
	}
	if err != nil {
		panic(fmt.Sprintf("lockpb: %s: %v", p.GetName(), err))
	}
	return f.Services().Get(0)
}

// FindFileByPath finds a file of etcd's.
func (s *Schema) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := s.files.FindFileByPath(path); err == nil {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName finds a message, service or other symbol.
func (s *Schema) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := s.files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// Route is the path at which the JSON gateway takes calls of m, by POST.
func Route(m protoreflect.MethodDescriptor) string {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	return rule.GetPost()
}

// FullMethod is m's name on the wire.
func FullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// Message is a message of one of the services, or one of their fields.
type Message struct{ protoreflect.Message }

// NewMessage makes an empty message.
func NewMessage(d protoreflect.MessageDescriptor) Message {
	return Message{dynamicpb.NewMessage(d)}
}

// Bytes returns the field's value; it belongs to the message.
func (m Message) Bytes(field protoreflect.Name) []byte { return m.Get(m.field(field)).Bytes() }

// Int64 returns the field's value.
func (m Message) Int64(field protoreflect.Name) int64 { return m.Get(m.field(field)).Int() }

// Sub returns the message in a field, and whether there is one.
func (m Message) Sub(field protoreflect.Name) (Message, bool) {
	f := m.field(field)
	return Message{m.Get(f).Message()}, m.Has(f)
}

// With sets a field to a []byte, an int64 or a [protoreflect.Message] and
// returns m.
func (m Message) With(field protoreflect.Name, value any) Message {
	if v, ok := value.(Message); ok {
		value = v.Message
	}
	m.Set(m.field(field), protoreflect.ValueOf(value))
	return m
}

func (m Message) field(name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

// The types of fields that are messages.
const (
	header    = ".etcdserverpb.ResponseHeader"
	keyValue  = ".mvccpb.KeyValue"
	leaderKey = ".v3electionpb.LeaderKey"
)

// lockFile and electionFile have the names that etcd gives its files: clients of
// the reflection service see them.
func lockFile() *descriptorpb.FileDescriptorProto {
	return file("v3lock",
		[]*descriptorpb.DescriptorProto{
			message("LockRequest", bytes("name", 1), int64s("lease", 2)),
			message("LockResponse", sub("header", 1, header), bytes("key", 2)),
			message("UnlockRequest", bytes("key", 1)),
			message("UnlockResponse", sub("header", 1, header)),
		},
		"Lock",
		method("Lock", "LockRequest", "LockResponse", "/v3/lock/lock"),
		method("Unlock", "UnlockRequest", "UnlockResponse", "/v3/lock/unlock"),
	)
}

func electionFile() *descriptorpb.FileDescriptorProto {
	observe := method("Observe", "LeaderRequest", "LeaderResponse", "/v3/election/observe")
	observe.ServerStreaming = proto.Bool(true)
	return file("v3election",
		[]*descriptorpb.DescriptorProto{
			message("CampaignRequest", bytes("name", 1), int64s("lease", 2), bytes("value", 3)),
			message("CampaignResponse", sub("header", 1, header), sub("leader", 2, leaderKey)),
			message("LeaderKey", bytes("name", 1), bytes("key", 2), int64s("rev", 3), int64s("lease", 4)),
			message("LeaderRequest", bytes("name", 1)),
			message("LeaderResponse", sub("header", 1, header), sub("kv", 2, keyValue)),
			message("ResignRequest", sub("leader", 1, leaderKey)),
			message("ResignResponse", sub("header", 1, header)),
			message("ProclaimRequest", sub("leader", 1, leaderKey), bytes("value", 2)),
			message("ProclaimResponse", sub("header", 1, header)),
		},
		"Election",
		method("Campaign", "CampaignRequest", "CampaignResponse", "/v3/election/campaign"),
		method("Proclaim", "ProclaimRequest", "ProclaimResponse", "/v3/election/proclaim"),
		method("Leader", "LeaderRequest", "LeaderResponse", "/v3/election/leader"),
		observe,
		method("Resign", "ResignRequest", "ResignResponse", "/v3/election/resign"),
	)
}

// file describes NAME.proto with one service, in the package NAMEpb.
func file(name string, messages []*descriptorpb.DescriptorProto, service string, methods ...*descriptorpb.MethodDescriptorProto) *descriptorpb.FileDescriptorProto {
	return &descriptorpb.FileDescriptorProto{
		Name:        proto.String(name + ".proto"),
		Package:     proto.String(name + "pb"),
		Syntax:      proto.String("proto3"),
		Dependency:  dependencies(),
		MessageType: messages,
		Service:     []*descriptorpb.ServiceDescriptorProto{{Name: proto.String(service), Method: methods}},
	}
}

// dependencies are the files that both refer to.
func dependencies() []string {
	return []string{
		(*pb.ResponseHeader)(nil).ProtoReflect().Descriptor().ParentFile().Path(),
		(*mvccpb.KeyValue)(nil).ProtoReflect().Descriptor().ParentFile().Path(),
		annotations.File_google_api_annotations_proto.Path(),
	}
}

func message(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: fields}
}

func bytes(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return field(name, number, descriptorpb.FieldDescriptorProto_TYPE_BYTES)
}

func int64s(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return field(name, number, descriptorpb.FieldDescriptorProto_TYPE_INT64)
}

func sub(name string, number int32, of string) *descriptorpb.FieldDescriptorProto {
	f := field(name, number, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	f.TypeName = proto.String(of)
	return f
}

func field(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), JsonName: proto.String(name), Number: proto.Int32(number),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: kind.Enum(),
	}
}

func method(name, in, out, route string) *descriptorpb.MethodDescriptorProto {
	options := new(descriptorpb.MethodOptions)
	proto.SetExtension(options, annotations.E_Http, &annotations.HttpRule{
		Pattern: &annotations.HttpRule_Post{Post: route}, Body: "*",
	})
	return &descriptorpb.MethodDescriptorProto{
		Name: proto.String(name), InputType: proto.String(in), OutputType: proto.String(out), Options: options,
	}
}
