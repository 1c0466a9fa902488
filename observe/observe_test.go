package observe

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"testing"
)

// kinds makes an event of each name that a type has.
func kinds(t *testing.T, typ reflect.Type) (events []Event) {
	t.Helper()
	one := reflect.New(typ).Elem()
	kind := one.FieldByName("Kind")
	if typ == reflect.TypeFor[API]() {
		kind = one.FieldByName("Op")
	}
	if !kind.IsValid() {
		return []Event{one.Interface().(Event)}
	}
	if name := one.Interface().(Event).Name(); name != "" {
		t.Errorf("%v of no kind is named %q", typ, name)
	}
	for k := uint64(1); ; k++ {
		kind.SetUint(k)
		e := one.Interface().(Event)
		if e.Name() == "" {
			return events
		}
		events = append(events, e)
	}
}

// all is an event of each name.
func all(t *testing.T) (events []Event) {
	observer := reflect.TypeFor[Observer]()
	for i := range observer.NumField() {
		f := observer.Field(i).Type
		if f.Kind() != reflect.Func || f.NumIn() != 1 || f.NumOut() != 0 {
			t.Fatalf("Observer.%s is no function of an event", observer.Field(i).Name)
		}
		if name := f.In(0).Name(); name != observer.Field(i).Name {
			t.Errorf("Observer.%s is given %s", observer.Field(i).Name, name)
		}
		events = append(events, kinds(t, f.In(0))...)
	}
	return events
}

// tell calls o's function for e.
func tell(o *Observer, e Event) {
	f := reflect.ValueOf(o).Elem().FieldByName(reflect.TypeOf(e).Name())
	if !f.IsNil() {
		f.Call([]reflect.Value{reflect.ValueOf(e)})
	}
}

func TestNamesAreThoseOfTheTypes(t *testing.T) {
	var names []string
	for _, e := range all(t) {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if got := Names(); !slices.Equal(got, names) {
		t.Errorf("Names() = %v\nthe types have %v", got, names)
	}
	if len(slices.Compact(names)) != len(Names()) {
		t.Errorf("a name is there twice: %v", Names())
	}
	if int(OpSnapshot) != len(apiNames)-1 || Op(Ops+1).String() != "unknown" || OpPutIf.String() != "put_if" {
		t.Errorf("%d operations, the last is %v, after it %v", Ops, Op(Ops), Op(Ops+1))
	}
}

func TestEveryEventReachesEveryListener(t *testing.T) {
	var h Hub
	events := all(t)
	everything, err := h.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		only, err := h.Subscribe(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range events {
			tell(h.Load(), other)
		}
		if got := len(only.Events()); got != 1 {
			t.Errorf("who listens to %s got %d events", e.Name(), got)
		} else if got := <-only.Events(); got.Name() != e.Name() {
			t.Errorf("who listens to %s got %s", e.Name(), got.Name())
		}
		only.Close()
		for _, want := range events {
			if got := <-everything.Events(); got.Name() != want.Name() {
				t.Fatalf("who listens to everything got %s, want %s", got.Name(), want.Name())
			}
		}
	}
	everything.Close()
	if o := h.Load(); !reflect.ValueOf(*o).IsZero() {
		t.Errorf("after all have gone there are functions: %+v", o)
	}
}

func TestSubscribeToAnUnknownName(t *testing.T) {
	var h Hub
	if s, err := h.Subscribe("api.put", "api.putt"); err == nil {
		t.Errorf("there is %v", s)
	}
	if h.joined.Load() != nil {
		t.Error("a refused subscription left something")
	}
}

func TestDropsAreCounted(t *testing.T) {
	var h Hub
	s, err := h.Subscribe("lease.granted")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range Buffer + 5 {
		h.Load().Lease(Lease{Kind: LeaseGranted, ID: int64(i)})
	}
	if s.Dropped() != 5 || len(s.Events()) != Buffer {
		t.Errorf("%d dropped, %d kept", s.Dropped(), len(s.Events()))
	}
	for i := range Buffer {
		if e := (<-s.Events()).(Lease); e.ID != int64(i) {
			t.Fatalf("event %d is %v", i, e)
		}
	}
}

func TestPanicsGoNoFurther(t *testing.T) {
	var h Hub
	var reported []string
	h.OnPanic(func(name string, panicked any) { reported = append(reported, name+": "+panicked.(string)) })
	got := 0
	h.Add(Observer{Disk: func(Disk) { panic("no") }})
	h.Add(Observer{Disk: func(Disk) { got++ }})
	for range 3 {
		h.Load().Disk(Disk{Kind: DiskFull})
	}
	if got != 3 || h.Panics() != 3 || len(reported) != 1 || reported[0] != "disk.full: no" {
		t.Errorf("the other got %d of 3 events; %d panics; reported %q", got, h.Panics(), reported)
	}
}

func TestOnChange(t *testing.T) {
	var h Hub
	var has []bool
	h.OnChange(func(o *Observer) { has = append(has, o.API != nil) })
	remove := h.Add(Observer{API: func(API) {}})
	remove()
	remove()
	if !slices.Equal(has, []bool{false, true, false}) {
		t.Errorf("told %v", has)
	}
}

func TestTraceTravelsInAContext(t *testing.T) {
	trace := NewTrace([]byte("0123456789012345678901234"))
	ctx := WithTrace(context.Background(), trace)
	if got := TraceOf(ctx); got != trace || string(got.Bytes()) != "0123456789012345678901234" {
		t.Errorf("got %v", got)
	}
	long := NewTrace(make([]byte, MaxTrace+1))
	if !long.IsZero() || WithTrace(t.Context(), long) != t.Context() {
		t.Error("a trace that is too long is one")
	}
	if got := TraceOf(context.Background()); !got.IsZero() {
		t.Errorf("a context without a trace has %v", got)
	}
}

// Observers come and go while events are told.
func TestHubConcurrently(t *testing.T) {
	var h Hub
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				s, err := h.Subscribe("api.get", "limit.hit")
				if err != nil {
					t.Error(err)
					return
				}
				if f := h.Load().Limit; f != nil {
					f(Limit{Kind: LimitHit})
				}
				if len(s.Events()) == 0 && s.Dropped() == 0 {
					t.Error("who listens misses an event of its own")
				}
				s.Close()
			}
		})
	}
	group.Wait()
}

// BenchmarkNobodyListens is what an event costs when nobody wants it: it must
// stay under 5 ns.
func BenchmarkNobodyListens(b *testing.B) {
	var h Hub
	for b.Loop() {
		if f := h.Load().API; f != nil {
			f(API{Op: OpPut})
		}
	}
}

func BenchmarkObserver(b *testing.B) {
	var h Hub
	n := 0
	h.Add(Observer{API: func(e API) { n += int(e.Op) }})
	b.ReportAllocs()
	for b.Loop() {
		if f := h.Load().API; f != nil {
			f(API{Op: OpPut})
		}
	}
}

func BenchmarkSubscription(b *testing.B) {
	var h Hub
	s, err := h.Subscribe("api.put")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if f := h.Load().API; f != nil {
			f(API{Op: OpPut})
		}
		<-s.Events()
	}
}
