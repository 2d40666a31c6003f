// The peers' server with the official go-sdk: `peer stdio`, `peer http PORT` (2026-07-28) or `peer sessions PORT`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type echoArgs struct {
	Text string `json:"text"`
}

type fibonacciArgs struct {
	N int `json:"n"`
}

type fetchArgs struct {
	Endpoint string `json:"endpoint"`
}

type processArgs struct {
	Data map[string]any `json:"data"`
}

type queryArgs struct {
	Query   string `json:"query"`
	DelayMS int    `json:"delay_ms"`
}

type searchArgs struct {
	Category string  `json:"category"`
	MinPrice float64 `json:"min_price"`
	MaxPrice float64 `json:"max_price"`
	Limit    int     `json:"limit"`
}

type cartArgs struct {
	UserID string `json:"user_id"`
}

type checkoutArgs struct {
	UserID string `json:"user_id"`
	Items  []item `json:"items"`
}

func text(said string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: said}}}
}

// Adds a tool whose result is told as JSON in one text block.
func add[In any](server *mcp.Server, name, description string, work func(context.Context, In) (any, error)) {
	mcp.AddTool(server, &mcp.Tool{Name: name, Description: description},
		func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
			found, err := work(ctx, in)
			if err != nil {
				return nil, nil, err
			}
			said, err := json.Marshal(found)
			if err != nil {
				return nil, nil, err
			}
			return text(string(said)), nil, nil
		})
}

func newServer(shop *shop) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "peer", Version: "1.0.0"}, &mcp.ServerOptions{SchemaCache: mcp.NewSchemaCache()})
	mcp.AddTool(server, &mcp.Tool{Name: "echo", Description: "Gives the text back."},
		func(_ context.Context, _ *mcp.CallToolRequest, in echoArgs) (*mcp.CallToolResult, any, error) {
			return text(in.Text), nil, nil
		})
	add(server, "calculate_fibonacci", "The nth Fibonacci number, naively.", func(_ context.Context, in fibonacciArgs) (any, error) {
		if in.N < 0 || in.N > 40 {
			return nil, errors.New("n is 0 to 40")
		}
		return map[string]any{"result": fibonacci(in.N)}, nil
	})
	add(server, "fetch_external_data", "What an HTTP endpoint says.", func(ctx context.Context, in fetchArgs) (any, error) {
		return shop.fetch(ctx, in.Endpoint)
	})
	add(server, "process_json_data", "The strings of an object in upper case.", func(_ context.Context, in processArgs) (any, error) {
		return transformed(in.Data), nil
	})
	add(server, "simulate_database_query", "Waits as a database would.", func(_ context.Context, in queryArgs) (any, error) {
		time.Sleep(time.Duration(min(in.DelayMS, 5000)) * time.Millisecond)
		return map[string]any{"query": in.Query, "delay_ms": in.DelayMS, "rows": 1}, nil
	})
	add(server, "search_products", "Products of a category and a price, with their popularity.", shop.search)
	add(server, "get_user_cart", "A user's cart and recent orders.", shop.cart)
	add(server, "checkout", "Orders what is in the list.", shop.checkout)
	return server
}

func fibonacci(n int) int {
	if n < 2 {
		return n
	}
	return fibonacci(n-1) + fibonacci(n-2)
}

func transformed(data map[string]any) any {
	keys := make([]string, 0, len(data))
	for key := range data {
		keys = append(keys, key)
	}
	return map[string]any{"original_keys": keys, "transformed_data": upper(data)}
}

func upper(value any) any {
	switch value := value.(type) {
	case string:
		return strings.ToUpper(value)
	case []any:
		for i := range value {
			value[i] = upper(value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = upper(value[name])
		}
	}
	return value
}

func main() {
	server := newServer(newShop())
	if os.Args[1] == "stdio" {
		if err := server.Run(context.Background(), &mcp.StdioTransport{}); err != nil {
			log.Fatal(err)
		}
		return
	}
	options := &mcp.StreamableHTTPOptions{Stateless: os.Args[1] == "http", JSONResponse: true}
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, options)
	mux := http.NewServeMux()
	mux.Handle("/mcp", handler)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[2], mux))
}
