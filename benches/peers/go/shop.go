package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

type item struct {
	ProductID int `json:"product_id"`
	Quantity  int `json:"quantity"`
}

// What the shop's tools work with: one HTTP client with its pool, one Redis client with its own, made when first needed.
type shop struct {
	api   string
	http  *http.Client
	redis func() *redis.Client
}

func newShop() *shop {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &shop{
		api:  env("API_URL", "http://127.0.0.1:8100"),
		http: &http.Client{Transport: transport},
		redis: sync.OnceValue(func() *redis.Client {
			options, err := redis.ParseURL(env("REDIS_URL", "redis://127.0.0.1:6379"))
			if err != nil {
				panic(err)
			}
			options.PoolSize = 64
			return redis.NewClient(options)
		}),
	}
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func (s *shop) ask(request *http.Request, answer any) (int, error) {
	response, err := s.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return response.StatusCode, json.NewDecoder(response.Body).Decode(answer)
}

func (s *shop) get(ctx context.Context, url string, answer any) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	return s.ask(request, answer)
}

// Runs all at once and gives what went wrong in any of them.
func together(work ...func() error) error {
	failures := make([]error, len(work))
	var all sync.WaitGroup
	for i, one := range work {
		all.Go(func() { failures[i] = one() })
	}
	all.Wait()
	return errors.Join(failures...)
}

func (s *shop) fetch(ctx context.Context, endpoint string) (any, error) {
	var data any
	status, err := s.get(ctx, endpoint, &data)
	return map[string]any{"status": status, "data": data}, err
}

type product struct {
	ID     int     `json:"id"`
	SKU    string  `json:"sku"`
	Name   string  `json:"name"`
	Price  float64 `json:"price"`
	Rating float64 `json:"rating"`
	Rank   int     `json:"popularity_rank"`
}

func (s *shop) search(ctx context.Context, in searchArgs) (any, error) {
	var found struct {
		TotalFound int       `json:"total_found"`
		Products   []product `json:"products"`
	}
	var popular []string
	query := url.Values{
		"category":  {in.Category},
		"min_price": {strconv.FormatFloat(in.MinPrice, 'f', -1, 64)},
		"max_price": {strconv.FormatFloat(in.MaxPrice, 'f', -1, 64)},
		"limit":     {strconv.Itoa(in.Limit)},
	}
	err := together(
		func() error { _, err := s.get(ctx, s.api+"/products/search?"+query.Encode(), &found); return err },
		func() (err error) { popular, err = s.redis().ZRevRange(ctx, "bench:popular", 0, 9).Result(); return err },
	)
	if err != nil {
		return nil, err
	}
	ids, ranks := make([]int, 0, len(popular)), make(map[int]int, len(popular))
	for place, member := range popular {
		id, err := strconv.Atoi(strings.TrimPrefix(member, "product:"))
		if err != nil {
			return nil, err
		}
		ids, ranks[id] = append(ids, id), place+1
	}
	for i := range found.Products {
		found.Products[i].Rank = ranks[found.Products[i].ID]
	}
	return map[string]any{"category": in.Category, "total_found": found.TotalFound, "products": found.Products,
		"top_popular_ids": ids, "server_type": "go"}, nil
}

func (s *shop) cart(ctx context.Context, in cartArgs) (any, error) {
	cart, err := s.redis().HGetAll(ctx, "bench:cart:"+in.UserID).Result()
	if err != nil {
		return nil, err
	}
	var items []struct {
		ProductID int `json:"product_id"`
		Qty       int `json:"qty"`
	}
	if err := json.Unmarshal([]byte(cart["items"]), &items); err != nil || len(items) == 0 {
		return nil, errors.New("there is no such cart")
	}
	var first any
	var orders []string
	err = together(
		func() error { _, err := s.get(ctx, fmt.Sprintf("%s/products/%d", s.api, items[0].ProductID), &first); return err },
		func() (err error) { orders, err = s.redis().LRange(ctx, "bench:history:"+in.UserID, 0, 4).Result(); return err },
	)
	if err != nil {
		return nil, err
	}
	recent := make([]json.RawMessage, len(orders))
	for i, order := range orders {
		recent[i] = json.RawMessage(order)
	}
	total, err := strconv.ParseFloat(cart["total"], 64)
	return map[string]any{"user_id": in.UserID, "items": items, "first_product": first, "recent_history": recent,
		"total": total, "server_type": "go"}, err
}

func (s *shop) checkout(ctx context.Context, in checkoutArgs) (any, error) {
	if len(in.Items) == 0 {
		return nil, errors.New("a checkout has at least one item")
	}
	body, err := json.Marshal(map[string]any{"user_id": in.UserID, "items": in.Items})
	if err != nil {
		return nil, err
	}
	number, _ := strconv.Atoi(in.UserID[strings.LastIndexByte(in.UserID, '-')+1:])
	var price struct {
		OrderID string  `json:"order_id"`
		Total   float64 `json:"total"`
	}
	var count int64
	err = together(
		func() error {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.api+"/cart/calculate", bytes.NewReader(body))
			if err != nil {
				return err
			}
			request.Header.Set("Content-Type", "application/json")
			_, err = s.ask(request, &price)
			return err
		},
		func() (err error) {
			count, err = s.redis().Incr(ctx, fmt.Sprintf("bench:ratelimit:user-%05d", number%100)).Result()
			return err
		},
		func() error { return s.redis().RPush(ctx, "bench:history:"+in.UserID, body).Err() },
		func() error {
			return s.redis().ZIncrBy(ctx, "bench:popular", 1, fmt.Sprintf("product:%d", in.Items[0].ProductID)).Err()
		},
	)
	return map[string]any{"order_id": price.OrderID, "status": "confirmed", "total": price.Total, "items_count": len(in.Items),
		"rate_limit_count": count, "server_type": "go"}, err
}
