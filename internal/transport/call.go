package transport

import (
	"context"
	"errors"
	"net"
	"time"
)

// Call sends a request of at most MaxCall bytes to whoever is at addr, member
// of this cluster or not, and returns what its ReceiveCall answered, or a
// [RemoteError]. It takes at most CallTimeout.
func (t *Transport) Call(ctx context.Context, addr string, payload []byte) ([]byte, error) {
	if len(payload) > t.cfg.MaxCall {
		return nil, ErrTooLarge
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	h := t.hello(0)
	h.purpose = purposeCall
	conn, _, err := t.dial(ctx, addr, h)
	if err != nil {
		return nil, ended(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := writeFrame(conn, kindRequest, payload); err != nil {
		return nil, ended(ctx, err)
	}
	answer, err := readAnswer(conn, max(t.cfg.MaxCall, errorBytes))
	var remote *RemoteError
	if err != nil && !errors.As(err, &remote) {
		return nil, ended(ctx, err)
	}
	return answer, err
}

func (t *Transport) serveCall(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(t.cfg.CallTimeout)); err != nil {
		return err
	}
	r := frameReader{r: conn, max: t.cfg.MaxCall}
	k, payload, err := r.next()
	if err != nil || k != kindRequest {
		return errors.Join(err, errUnexpected)
	}
	answer, err := t.cfg.Handler.ReceiveCall(conn.RemoteAddr().String(), payload)
	if err == nil && len(answer) > t.cfg.MaxCall {
		err = ErrTooLarge
	}
	if err := writeAnswer(conn, answer, err); err != nil {
		return err
	}
	return drain(conn)
}
