package server

import (
	"net/http"

	"google.golang.org/grpc"
)

// traced is g itself where nothing is traced.
func (s *Server) traced(g grpc.ServiceRegistrar) grpc.ServiceRegistrar {
	if s.cfg.Tracing == nil {
		return g
	}
	return s.cfg.Tracing.Registrar(g)
}

// tracedPages is next itself where nothing is traced.
func (s *Server) tracedPages(next http.Handler) http.Handler {
	if s.cfg.Tracing == nil {
		return next
	}
	return s.cfg.Tracing.Handler(next)
}
