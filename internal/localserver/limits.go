package localserver

import (
	"net/http"
	"time"
)

// limits bound what one client can take of the server. A body has a limit in each operation, which
// answers 413 before it is read.
type limits struct {
	header      time.Duration // until a request's header is there
	read        time.Duration // and its body
	write       time.Duration // from the end of the header to the end of the answer
	idle        time.Duration // between requests
	stop        time.Duration // that requests under way are given to end when the server stops
	headerBytes int           // of a request line and header, some 4 KB more are let through; 431 above
}

var serverLimits = limits{
	header:      5 * time.Second,
	read:        30 * time.Second,
	write:       60 * time.Second,
	idle:        2 * time.Minute,
	stop:        requestTimeout + time.Second,
	headerBytes: 32 << 10,
}

func (l limits) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: l.header,
		ReadTimeout:       l.read,
		WriteTimeout:      l.write,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    l.headerBytes,

		DisableGeneralOptionsHandler: true, // OPTIONS * is the API's to answer, like all else
	}
}
