package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/internal/object/meter"
)

// metricsFlags say where metrics are shown.
type metricsFlags struct {
	MetricsListen  string `help:"Address of /metrics, for Prometheus; none if empty." env:"SHAPELINE_METRICS_LISTEN"`
	PrometheusPort int    `hidden:"" env:"ELECTRIC_PROMETHEUS_PORT"`
}

// start serves /metrics in group, if that is wanted. ready tells whether the process does its work.
func (f metricsFlags) start(ctx context.Context, group *errgroup.Group, store *meter.Store, ready func() bool, log *slog.Logger) {
	addr := f.MetricsListen
	if addr == "" && f.PrometheusPort != 0 {
		addr = net.JoinHostPort("", strconv.Itoa(f.PrometheusPort))
	}
	if addr == "" {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(store, ready), promhttp.HandlerOpts{}))
	group.Go(func() error { return listen(ctx, addr, mux, log, nil) })
}

func registry(store *meter.Store, ready func() bool) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), storeCollector{store},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shapeline_ready", Help: "1 while the process does its work: health says active.",
		}, func() float64 {
			if ready() {
				return 1
			}
			return 0
		}))
	return r
}

// storeCollector shows what was asked of the bucket.
type storeCollector struct{ store *meter.Store }

var (
	storeLabels   = []string{"op", "kind"}
	storeRequests = prometheus.NewDesc("shapeline_store_requests_total", "Requests to the bucket.", storeLabels, nil)
	storeFailures = prometheus.NewDesc("shapeline_store_failures_total", "Requests to the bucket that failed.", storeLabels, nil)
	storeBytes    = prometheus.NewDesc("shapeline_store_bytes_total", "Bytes of bodies from and to the bucket.", storeLabels, nil)
	storeDollars  = prometheus.NewDesc("shapeline_store_dollars_total", "Cost of the requests to the bucket at list price.", storeLabels, nil)
)

// Describe implements prometheus.Collector.
func (storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storeRequests, storeFailures, storeBytes, storeDollars} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	for _, n := range c.store.Counts() {
		for d, v := range map[*prometheus.Desc]float64{
			storeRequests: float64(n.Requests), storeFailures: float64(n.Failures), storeBytes: float64(n.Bytes), storeDollars: n.Dollars,
		} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, n.Op.String(), n.Kind)
		}
	}
}
