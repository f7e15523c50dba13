-- All accounts of real property, homes or not. The address is HCAD's own line where it has one, else made of its parts. A building has
-- rooms when bedrooms (RMB) and bathrooms (RMF or RMH) are stated, as 0 too. Of several polygons the largest is the account's place.
with furnished as (
    select f.acct, f.bld_num
      from {fixtures} f
     where f.type in ('RMB', 'RMF', 'RMH') and f.units is not null
     group by f.acct, f.bld_num
    having bool_or(f.type = 'RMB') and bool_or(f.type in ('RMF', 'RMH'))
), built as (
    select b.acct, count(distinct b.bld_num)::integer as buildings, bool_or(f.acct is not null) as has_rooms
      from {building_res} b left join furnished f on f.acct = b.acct and f.bld_num = b.bld_num
     group by b.acct
), place as (
    select distinct on (c.acct) c.acct, c.latitude, c.longitude
      from {parcel_centroid} c
     where c.latitude is not null and c.longitude is not null
     order by c.acct, c.area desc nulls last, c.y, c.x
), account as (
    select r.*, coalesce(r.state_class in ('A1', 'A2', 'A4', 'E1'), false) as is_residential,
           coalesce(b.buildings, 0) as buildings, coalesce(b.has_rooms, false) as has_rooms,
           p.latitude, p.longitude, p.acct is not null as has_location
      from {real_acct} r left join built b on b.acct = r.acct left join place p on p.acct = r.acct
)
select acct,
       mailto as owner_name,
       coalesce(site_addr_1,
                case when str is not null
                     then concat_ws(' ', nullif(str_num, '0') || coalesce(str_num_sfx, ''), str_pfx, str, str_sfx, str_sfx_dir) end) as address,
       nullif(str_num, '0') as street_number,
       nullif(concat_ws(' ', str, str_sfx), '') as street_name,
       site_addr_2 as city,
       left(site_addr_3, 5) as zipcode,
       coalesce(tot_appr_val, tot_mkt_val) as value,
       tot_appr_val as appraised_value,
       tot_mkt_val as market_value,
       assessed_val as assessed_value,
       land_val as land_value,
       bld_val as improvement_value,
       bld_ar as building_area,
       land_ar as land_area,
       acreage,
       state_class,
       neighborhood_code,
       neighborhood_grp as neighborhood_group,
       market_area_1 as market_area,
       school_dist as school_district,
       new_own_dt as owner_since,
       buildings,
       latitude,
       longitude,
       is_residential,
       has_rooms,
       has_location,
       is_residential and has_rooms and has_location as is_data_ready
  from account
