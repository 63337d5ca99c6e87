package localserver

import (
	"net/http"
	"time"
)

// limits bound what one client can use of the server. Each operation has its own limit of a body,
// and responds 413 before reading it.
type limits struct {
	header      time.Duration // to receive a request's header
	read        time.Duration // to receive its body too
	write       time.Duration // from the end of the header to the end of the response
	idle        time.Duration // between requests
	stop        time.Duration // for requests under way to finish when the server stops
	headerBytes int           // of a request line and header; some 4 KB more are accepted; 431 above
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

		DisableGeneralOptionsHandler: true, // the API responds to OPTIONS *, as to all else
	}
}
