// Package keeps has variables that TestPackages_KeepNothingOfARequest must find.
package keeps

import "sync"

var (
	names = []string{"constant"}
	limit = 5
	cache = map[string]int{}
	parts = []struct{ n int }{{1}}
	count int
	last  string
	lock  sync.Mutex
	queue = make(chan int)
)

func use(name string) int {
	limit := limit + len(names)
	cache[name] = limit
	parts[0].n++
	count += limit
	p := &last
	*p = name
	return limit
}
