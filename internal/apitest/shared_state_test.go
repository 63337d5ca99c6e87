package apitest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutable matches values of a package's variable that can be changed without an assignment to it.
var mutable = regexp.MustCompile(`\b(sync|atomic|expvar)\.|\bchan\b|\bnew\(|\bmake\(|&|\*`)

// harmless are variables that the first request makes of constants, the same whatever it asks, or
// that hold memory which each request clears, or that are passed by their address and only read.
var harmless = map[string]bool{
	"wire.byName": true, "metering.totalsRoom": true, "metering.conversions": true,
	"reporting/aws.limits": true, "reporting/azure.limits": true, "reporting/gcp.limits": true,
}

// The worlds of TestOrganizations_CannotDetectEachOther run in one process: what one request leaves
// in a package variable for another organization's request would be visible in each of them.
// Therefore no such variable may exist: the variables of packages never change.
func TestPackages_KeepNothingOfARequest(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"httpapi", "auth", "table", "metering", "wire", "lambdahost", "lambdahost/tablehost", "lambdahost/connecthost", "dynamoclient",
		"awscall", "reporting", "reporting/aws", "reporting/azure", "reporting/connect", "reporting/exchange", "reporting/gcp",
	} {
		changes := slices.DeleteFunc(changedVariables(t, filepath.Join(root, "internal", name)), func(variable string) bool {
			return harmless[name+"."+variable]
		})
		if len(changes) > 0 {
			t.Errorf("%s has variables that a request may change for the next: %q", name, changes)
		}
	}
	if changes := changedVariables(t, "testdata/keeps"); !slices.Equal(changes, []string{"cache", "count", "last", "lock", "parts", "queue"}) {
		t.Errorf("of the variables in testdata/keeps that are changed, or may be, these are found: %q", changes)
	}
}

// changedVariables are the variables of the package in that folder that its code assigns to, in
// whole or in part, or whose type is changed by calls.
func changedVariables(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatal(folder, err)
	}
	files, variables, changed := []*ast.File{}, map[string]bool{}, []string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		for _, declaration := range file.Decls {
			d, ok := declaration.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				text := slices.Clone(source[set.Position(v.Pos()).Offset:set.Position(v.End()).Offset])
				ast.Inspect(v, func(n ast.Node) bool {
					switch n.(type) {
					case *ast.FuncLit, *ast.BasicLit: // what a function does when it is called is looked at below
						begin, end := set.Position(n.Pos()).Offset, set.Position(n.End()).Offset
						at := set.Position(v.Pos()).Offset
						copy(text[begin-at:end-at], bytes.Repeat([]byte(" "), end-begin))
						return false
					}
					return true
				})
				for _, name := range v.Names {
					if name.Name == "_" {
						continue
					}
					variables[name.Name] = true
					if mutable.Match(text) {
						changed = append(changed, name.Name)
					}
				}
			}
		}
	}
	change := func(e ast.Expr) {
		for {
			switch inner := e.(type) {
			case *ast.IndexExpr:
				e = inner.X
			case *ast.SelectorExpr:
				e = inner.X
			case *ast.StarExpr:
				e = inner.X
			case *ast.ParenExpr:
				e = inner.X
			case *ast.Ident:
				if variables[inner.Name] {
					changed = append(changed, inner.Name)
				}
				return
			default:
				return
			}
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					if n.Tok != token.DEFINE {
						change(left)
					}
				}
			case *ast.IncDecStmt:
				change(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					change(n.X)
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) {
					change(n.Args[0])
				}
			}
			return true
		})
	}
	slices.Sort(changed)
	return slices.Compact(changed)
}
