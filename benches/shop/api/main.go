// The HTTP service behind the shop: a catalog of 100,000 products, and the price of a cart. `shopapi PORT`, on loopback.
// benches/shop/README.md says whose workload this is.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
)

const (
	products     = 100_000
	taxRate      = 0.085
	shipping     = 5.99
	discountFrom = 100
	discountRate = 0.10
)

var categories = []string{"Electronics", "Books", "Clothing", "Home", "Garden", "Sports", "Toys", "Beauty", "Health", "Automotive",
	"Grocery", "Music", "Movies", "Games", "Office", "Pets", "Baby", "Shoes", "Jewelry", "Tools"}

type product struct {
	ID          int      `json:"id"`
	SKU         string   `json:"sku"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Category    string   `json:"category"`
	Brand       string   `json:"brand"`
	Price       float64  `json:"price"`
	Stock       int      `json:"stock"`
	Rating      float64  `json:"rating"`
	Tags        []string `json:"tags"`
	Weight      float64  `json:"weight"`
}

func cents(value float64) float64 {
	return math.Round(value*100) / 100
}

func catalog() []product {
	all := make([]product, products)
	for i := range all {
		tags := make([]string, 2+i%3)
		for t := range tags {
			tags[t] = fmt.Sprintf("tag-%d", (i+t)%100)
		}
		all[i] = product{
			ID: i, SKU: fmt.Sprintf("SKU-%06d", i), Name: fmt.Sprintf("Product %d", i),
			Description: fmt.Sprintf("Product %d of the catalog, as good as any other.", i),
			Category:    categories[i%len(categories)], Brand: fmt.Sprintf("Brand %d", i%50),
			Price: cents(1 + float64(i%99_900)/100), Stock: i % 501, Rating: math.Round((1+float64(i%40)/10)*10) / 10,
			Tags: tags, Weight: cents(0.1 + float64(i%500)/100),
		}
	}
	return all
}

func answer(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func number(r *http.Request, name string, otherwise float64) float64 {
	value, err := strconv.ParseFloat(r.URL.Query().Get(name), 64)
	if err != nil {
		return otherwise
	}
	return value
}

// A linear filter, and a sort by price: the work that the published workload gives this service.
func search(all []product) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		category, low, high := r.URL.Query().Get("category"), number(r, "min_price", 0), number(r, "max_price", math.Inf(1))
		var found []*product
		for i := range all {
			if p := &all[i]; p.Category == category && p.Price >= low && p.Price <= high {
				found = append(found, p)
			}
		}
		slices.SortStableFunc(found, func(a, b *product) int { return cmp.Compare(a.Price, b.Price) })
		limit := min(int(number(r, "limit", 10)), len(found))
		answer(w, map[string]any{"total_found": len(found), "products": found[:max(limit, 0)]})
	}
}

func byID(all []product) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || id < 0 || id >= len(all) {
			http.NotFound(w, r)
			return
		}
		answer(w, all[id])
	}
}

func calculate(all []product) http.HandlerFunc {
	var orders atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		var cart struct {
			UserID string `json:"user_id"`
			Items  []struct {
				ProductID int `json:"product_id"`
				Quantity  int `json:"quantity"`
			} `json:"items"`
		}
		if err := json.NewDecoder(r.Body).Decode(&cart); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		subtotal := 0.0
		for _, item := range cart.Items {
			if item.ProductID < 0 || item.ProductID >= len(all) {
				http.Error(w, "there is no such product", http.StatusBadRequest)
				return
			}
			subtotal += all[item.ProductID].Price * float64(item.Quantity)
		}
		discount, fee := 0.0, shipping
		if subtotal >= discountFrom {
			discount, fee = subtotal*discountRate, 0
		}
		tax := (subtotal - discount) * taxRate
		answer(w, map[string]any{
			"order_id": fmt.Sprintf("order-%08d", orders.Add(1)), "subtotal": cents(subtotal), "tax": cents(tax), "shipping": fee,
			"discount": cents(discount), "total": cents(subtotal - discount + tax + fee), "items_count": len(cart.Items),
		})
	}
}

func main() {
	all := catalog()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"status": "ok"}) })
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"message": "hello", "items": []int{1, 2, 3}})
	})
	mux.HandleFunc("GET /products/search", search(all))
	mux.HandleFunc("GET /products/{id}", byID(all))
	mux.HandleFunc("POST /cart/calculate", calculate(all))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], mux))
}
